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
class LoraChoices:
    """The user's choices for a LoRA file.

    Attributes:
        alpha: of modules whose tensors state none; None for what the file's notes state.
        ignore_unknown: whether tensors under a network's names that no module has are left out.
    """

    alpha: float | None = None
    ignore_unknown: bool = False


NO_CHOICES = LoraChoices()


@dataclass(frozen=True)
class LoraSummary:
    """A description of a LoRA file, for people.

    Attributes:
        kinds: of its modules, such as `LoRA`, `LoCon`, `DoRA`, `LoHa`, `LoKr`, `full`.
        naming: the convention of its tensors' names, such as `kohya`, `Diffusers`, `PEFT`.
        modules: number of changed modules of each component that has any.
        ranks: the ranks that occur, ascending.
        alphas: the alphas that are used, ascending; those of sd-scripts' note where the file is not
            whole yet, or was not matched with a model.
        notes: the author's, from the metadata.
        alpha_note: where the alphas come from, unless from tensors, and which statements differ.
        alpha_file: PEFT's file beside this one, with its digest, if an alpha is from there.
        asked_alpha: the user's alpha, if a module has it; else None.
    """

    kinds: tuple[str, ...]
    naming: str
    modules: Mapping[Component, int]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    notes: AuthorNotes
    alpha_note: str = ""
    alpha_file: str = ""
    asked_alpha: float | None = None


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
        ignored: number of tensors that are left out, by the reason or by their name.
        has_config_beside: whether PEFT's adapter_config.json beside the file was used.
    """

    summary: LoraSummary
    factors: tuple[TensorPlan, ...]
    alphas: tuple[TensorPlan, ...]
    ignored: Mapping[str, int]
    has_config_beside: bool = False
