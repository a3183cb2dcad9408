"""Where the alpha of each module comes from, and what else is stated of it; no torch.

A tensor counts before all; then what the user asks for, PEFT's JSON note, plain keys of the header,
and PEFT's adapter_config.json beside the file. Where nothing states it, alpha is the rank, which
makes the scale 1.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.file_tensor import shorten
from lpw_sdxl.lora.forms import Factor, ModuleTensors
from lpw_sdxl.lora.names import Naming
from lpw_sdxl.lora.numbers import read_numbers
from lpw_sdxl.lora.peft_config import (
    CONFIG_FILE,
    AdapterConfig,
    read_adapter_configs,
    read_config_beside,
    read_plain_configs,
)
from lpw_sdxl.lora.plan import TensorPlan
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader

NOT_TOLD = "not told, taken as the rank"
TENSORS = "their tensors"
ASKED = "--alpha"

_MAGNITUDES = (Factor.MAGNITUDE, Factor.DORA_SCALE)
_SHOWN_REMARKS = 4
_TOLERANCE = 0.01
"""Of a comparison with a note: bfloat16 rounds by less."""


class ScaledModule(NamedTuple):
    """A module whose formula has a scale, alpha / rank."""

    component: Component
    path: str
    tensors: ModuleTensors
    rank: int
    naming: Naming

    @property
    def is_peft(self) -> bool:
        """Return whether it is a LoRA in PEFT's or Diffusers' names."""
        return self.naming in (Naming.PEFT, Naming.DIFFUSERS) and Factor.DOWN in self.tensors


@dataclass(frozen=True)
class Alphas:
    """The alphas of a file.

    Attributes:
        plans: of each scaled module, in their order.
        values: the different alphas, ascending; without those of tensors that are not there yet.
        sources: number of modules by the source of their alpha: `TENSORS`, `ASKED`, `NOT_TOLD`, a
            key of the header, or PEFT's file.
        remarks: other statements, which do not count.
    """

    plans: tuple[TensorPlan, ...]
    values: tuple[float, ...]
    sources: Mapping[str, int]
    remarks: tuple[str, ...]

    @property
    def file_beside(self) -> str:
        """Return PEFT's file beside this one, with its digest, if an alpha is from there."""
        return next((source for source in self.sources if source.startswith(CONFIG_FILE)), "")

    @property
    def note(self) -> str:
        """Return where the alphas come from, for a reader; empty for tensors without a remark."""
        by_count = sorted(self.sources.items(), key=lambda item: (-item[1], item[0]))
        if len(by_count) == 1:
            texts = [_of_all(source) for source, _ in by_count]
        else:
            texts = [_of_some(source, count) for source, count in by_count]
        return "; ".join(text for text in (*texts, *self.remarks) if text)


def choose_alphas(
    header: CheckpointHeader, modules: Sequence[ScaledModule], asked: float | None
) -> Alphas:
    """Choose the alpha of each module.

    Args:
        header: of the file; alphas in its tensors are read where the file is whole.
        modules: those whose formula has a scale.
        asked: the user's own alpha for modules without a tensor, or None.

    Raises:
        AddonError: the JSON note does not fit the tensors, or a tensor states another alpha than
            the user.
    """
    tensors = [module.tensors[Factor.ALPHA] for module in modules if Factor.ALPHA in module.tensors]
    choice = _Choice(header, asked, _Notes.read(header, modules), read_numbers(tensors))
    plans = tuple(choice.choose(module) for module in modules)
    if asked is not None and not modules:
        raise AddonError(
            f"{header.name} has no module whose formula has a scale; leave out --alpha."
        )
    return Alphas(
        plans,
        tuple(sorted(set(choice.used_by.values()))),
        dict(choice.sources),
        choice.list_remarks(modules),
    )


@dataclass(frozen=True)
class _Notes:
    """The statements beside the tensors; `flaw` is why PEFT's file is not used."""

    noted: Mapping[Component, AdapterConfig]
    plain: Mapping[Component, AdapterConfig]
    beside: AdapterConfig | None
    flaw: str

    @classmethod
    def read(cls, header: CheckpointHeader, modules: Sequence[ScaledModule]) -> _Notes:
        beside, flaw = None, ""
        own = [module for module in modules if module.is_peft]
        try:
            beside = read_config_beside(header.path) if own else None
            for module in own if beside else ():
                _check(CONFIG_FILE, beside, module)
        except AddonError as error:
            # It may belong to another file of the folder, so it is no reason to refuse this one.
            beside, flaw = None, f"{CONFIG_FILE} beside it is not used: {error}"
        return cls(read_adapter_configs(header), read_plain_configs(header), beside, flaw)

    def all_of(self, module: ScaledModule) -> list[AdapterConfig]:
        """Return what states this module's alpha, what counts most first."""
        found = (
            self.noted.get(module.component),
            self.plain.get(module.component),
            self.beside if module.is_peft else None,
        )
        return [config for config in found if config is not None]


@dataclass
class _Choice:
    """The choice for one file, module by module."""

    header: CheckpointHeader
    asked: float | None
    notes: _Notes
    numbers: Mapping[str, float]
    sources: Counter[str] = field(default_factory=Counter)
    used_by: dict[tuple[Component, str], float] = field(default_factory=dict)

    def choose(self, module: ScaledModule) -> TensorPlan:
        tensor = module.tensors.get(Factor.ALPHA)
        if tensor is not None:
            source, value, number = TENSORS, None, self.numbers.get(tensor.name)
            self._check_asked(tensor.name, number)
        else:
            source, value = self._find(module)
            number = value
        self.sources[source] += 1
        if number is not None:
            self.used_by[module.component, module.path] = number
        return TensorPlan(module.component, module.path, Factor.ALPHA, (), tensor, value)

    def _check_asked(self, name: str, number: float | None) -> None:
        if self.asked is None or number is None or math.isclose(self.asked, number):
            return
        raise AddonError(
            f"{self.header.name}: tensor {shorten(name)} states the alpha {number:g}, and --alpha "
            f"{self.asked:g} is asked for; leave out --alpha, because the tensor counts."
        )

    def _find(self, module: ScaledModule) -> tuple[str, float]:
        """Return the source and the number of an alpha that has no tensor."""
        if self.asked is not None:
            return ASKED, self.asked
        noted = self.notes.noted.get(module.component)
        if noted is not None:
            if Factor.DOWN not in module.tensors:
                name = next(iter(module.tensors.values())).name
                raise AddonError(
                    f"{self.header.name}: tensor {shorten(name)} is no part of the LoRA that its "
                    f"note {noted.place} describes; --alpha N states the alpha instead of the note."
                )
            _check(self.header.name, noted, module)
        for config in self.notes.all_of(module):
            return config.place, config.alpha_of(module.path, module.rank)
        return NOT_TOLD, float(module.rank)

    def list_remarks(self, modules: Sequence[ScaledModule]) -> tuple[str, ...]:
        """List the statements that differ from what is used."""
        remarks: Counter[str] = Counter()
        used_in: dict[Component, set[float]] = defaultdict(set)
        for (component, _), number in self.used_by.items():
            used_in[component].add(number)
        for module in modules:
            used = self.used_by.get((module.component, module.path))
            if used is None:  # a tensor that is not there yet
                continue
            for config in self.notes.all_of(module):
                stated = config.alpha_of(module.path, module.rank)
                # sd-scripts' keys leave out convolutions, which may have another alpha.
                is_plain = config is self.notes.plain.get(module.component)
                others = used_in[module.component] if is_plain else {used}
                if not any(math.isclose(stated, other, rel_tol=_TOLERANCE) for other in others):
                    remarks[f"{config.place} states {stated:g}, which does not count"] += 1
                rank = config.rank_of(module.path)
                if rank not in (None, module.rank):
                    remarks[f"{config.place} is for rank {rank:g}, not {module.rank}"] += 1
        flaw = [self.notes.flaw] if self.notes.flaw else []
        shown = [remark for remark, _ in remarks.most_common(_SHOWN_REMARKS)]
        return tuple(flaw + shown)


def _check(file: str, config: AdapterConfig | None, module: ScaledModule) -> None:
    assert config is not None
    has_magnitude = not module.tensors.keys().isdisjoint(_MAGNITUDES)
    config.check_module(file, module.path, module.rank, has_magnitude=has_magnitude)


def _of_all(source: str) -> str:
    return {TENSORS: "", NOT_TOLD: NOT_TOLD}.get(source, f"by {source}")


def _of_some(source: str, count: int) -> str:
    modules = f"{count} modules" if count > 1 else "1 module"
    return f"{modules} {NOT_TOLD}" if source == NOT_TOLD else f"{modules} by {source}"
