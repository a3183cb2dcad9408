"""What is in a LoRA file and whether it fits a model, from its header alone; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lpw_sdxl.checkpoint.header import CheckpointHeader, TensorInfo
from lpw_sdxl.lora.component import Component
from lpw_sdxl.lora.targets import Shape, Targets


@dataclass(frozen=True)
class LoraSummary:
    """What a LoRA file is, in words for people.

    Attributes:
        kinds: of its modules, such as `LoRA`, `LoCon`, `DoRA`, `LoHa`, `LoKr`, `full`.
        naming: whose names its tensors have, such as `kohya`, `Diffusers`, `PEFT`.
        modules: number of changed modules in each component that has some.
        ranks: the ranks that occur, ascending.
        alphas: the alphas that the metadata tells, ascending; the tensors may hold others.
        base_model: what it was trained on in the writer's words; empty if untold.
        title: in the writer's words; empty if untold.
        trained_words: what to write in a prompt, in the writer's words.
    """

    kinds: tuple[str, ...]
    naming: str
    modules: Mapping[Component, int]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    base_model: str
    title: str
    trained_words: tuple[str, ...]


@dataclass(frozen=True)
class FactorPlan:
    """One tensor of the canonical file and where it comes from.

    Attributes:
        component: whose module it changes.
        path: of that module within the component.
        factor: the canonical name, such as `lora_down`.
        source: its place in the source file.
        shape: the canonical shape; the source's has the same numbers in the same order.
    """

    component: Component
    path: str
    factor: str
    source: TensorInfo
    shape: Shape


@dataclass(frozen=True)
class AlphaPlan:
    """A module's alpha: a tensor of the file, or a number that the header gives.

    Attributes:
        component: whose module it scales.
        path: of that module within the component.
        source: its place in the source file, or None.
        value: the number where there is no tensor, or None.
    """

    component: Component
    path: str
    source: TensorInfo | None
    value: float | None


@dataclass(frozen=True)
class LoraPlan:
    """All that a conversion will write, decided from the header alone.

    Attributes:
        summary: of the file.
        factors: every tensor of the canonical file but the alphas.
        alphas: one for each module whose formula has a scale.
        ignored: number of unused tensors by the reason that they are harmless.
    """

    summary: LoraSummary
    factors: tuple[FactorPlan, ...]
    alphas: tuple[AlphaPlan, ...]
    ignored: Mapping[str, int]


def examine(header: CheckpointHeader, targets: Targets) -> LoraPlan:
    """Plan the conversion of a LoRA file for models of these modules.

    Raises:
        UnsupportedCheckpointError: the file is something else, of another base, or of a kind that
            is not served; the sentence names it.
        AddonError: a tensor is unknown, missing its partner, of the wrong shape or defined twice;
            it is named.
    """
    raise NotImplementedError


def describe_file(header: CheckpointHeader) -> LoraSummary:
    """Say what a LoRA file is without a model to hold it against, as far as its header tells."""
    raise NotImplementedError
