"""What a LoRA file is, and all that its conversion will write; no torch, and nothing is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lpw_sdxl.lora.names import Factor
from lpw_sdxl.lora.targets import Shape
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import TensorInfo


@dataclass(frozen=True)
class LoraSummary:
    """What a LoRA file is, in words for people.

    Attributes:
        kinds: of its modules, such as `LoRA`, `LoCon`, `DoRA`, `LoHa`, `LoKr`, `full`.
        naming: whose names its tensors have, such as `kohya`, `Diffusers`, `PEFT`.
        modules: number of changed modules in each component that has some.
        ranks: the ranks that occur, ascending.
        alphas: the alphas that the metadata states, ascending; the tensors may hold others.
        notes: its author's, as the metadata has them.
    """

    kinds: tuple[str, ...]
    naming: str
    modules: Mapping[Component, int]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    notes: AuthorNotes


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the canonical file and where it comes from.

    Attributes:
        component: whose module it changes.
        path: of that module within the component.
        factor: what it is to that module, by the canonical name.
        shape: the canonical shape; the source's has the same numbers in the same order.
        source: its place in the source file; None for an alpha that is a number of the header.
        value: that number.
    """

    component: Component
    path: str
    factor: Factor
    shape: Shape
    source: TensorInfo | None
    value: float | None = None

    @property
    def name(self) -> str:
        """Return what the canonical file calls it."""
        return f"{self.component.value}/{self.path}/{self.factor.value}"


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
    factors: tuple[TensorPlan, ...]
    alphas: tuple[TensorPlan, ...]
    ignored: Mapping[str, int]
