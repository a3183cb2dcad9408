"""Types: the summary of a LoRA file and the plan of its conversion; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lpw_sdxl.lora.forms import Factor
from lpw_sdxl.lora.targets import Shape
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import TensorInfo


@dataclass(frozen=True)
class LoraSummary:
    """A description of a LoRA file, for people.

    Attributes:
        kinds: of its modules, such as `LoRA`, `LoCon`, `DoRA`, `LoHa`, `LoKr`, `full`.
        naming: the convention of its tensors' names, such as `kohya`, `Diffusers`, `PEFT`.
        modules: number of changed modules of each component that has any.
        ranks: the ranks that occur, ascending.
        alphas: the alphas in the metadata, ascending; the tensors may hold others.
        notes: the author's, from the metadata.
    """

    kinds: tuple[str, ...]
    naming: str
    modules: Mapping[Component, int]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    notes: AuthorNotes


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the canonical file and its origin.

    Attributes:
        component: the network of the changed module.
        path: of that module within the component.
        factor: its role for that module.
        shape: the canonical shape; the source's has the same numbers in the same order.
        source: the tensor of the source file; None for an alpha that comes from the metadata or the
            rank.
        value: the number of such an alpha; else None.
    """

    component: Component
    path: str
    factor: Factor
    shape: Shape
    source: TensorInfo | None
    value: float | None = None

    @property
    def name(self) -> str:
        """Return the tensor's name in the canonical file."""
        return f"{self.component.value}/{self.path}/{self.factor.value}"


@dataclass(frozen=True)
class LoraPlan:
    """All that a conversion is to write, decided from the header alone.

    Attributes:
        summary: of the file.
        factors: every tensor of the canonical file but the alphas.
        alphas: one for each module whose formula has a scale.
        ignored: number of unused tensors, by the reason why leaving them out is harmless.
    """

    summary: LoraSummary
    factors: tuple[TensorPlan, ...]
    alphas: tuple[TensorPlan, ...]
    ignored: Mapping[str, int]
