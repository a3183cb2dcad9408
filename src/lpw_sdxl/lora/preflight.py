"""Examination of a LoRA file by its header alone: its contents, its fit to a model; no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora import metadata
from lpw_sdxl.lora.alphas import ASKED, ScaledModule, choose_alphas
from lpw_sdxl.lora.file_tensor import shorten
from lpw_sdxl.lora.forms import KIND_ORDER, Factor, ModuleTensors
from lpw_sdxl.lora.left_out import (
    LONE_ALPHAS,
    NO_SCALE,
    LeftOut,
    harmless_reason,
    is_foreign,
)
from lpw_sdxl.lora.module_form import ModuleForm, find_form, kinds_of, rank_of
from lpw_sdxl.lora.names import ModuleNames, Naming, component_of, split_name
from lpw_sdxl.lora.peft_config import CONFIG_FILE
from lpw_sdxl.lora.plan import NO_CHOICES, LoraChoices, LoraPlan, LoraSummary, TensorPlan
from lpw_sdxl.lora.refusals import refuse_by_metadata, refuse_by_tensors
from lpw_sdxl.lora.targets import TargetModules
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo


def examine(
    header: CheckpointHeader, targets: TargetModules, choices: LoraChoices = NO_CHOICES
) -> LoraPlan:
    """Plan the conversion of a LoRA file for models with these modules.

    Args:
        header: of the file.
        targets: the modules.
        choices: the user's.

    Raises:
        UnsupportedCheckpointError: the file is something else, for another base model, or of a
            form that is not served; the message names it.
        AddonError: a tensor is unknown, lacks its partner, has a wrong shape or is there twice, or
            an alpha contradicts the user's; the message names it.
    """
    refuse_by_tensors(header, targets)
    left_out = LeftOut(header.name, choices.ignore_unknown)
    matched = _match_tensors(header, ModuleNames(targets), left_out)
    modules = matched.modules
    refuse_by_metadata(header, has_unet=any(key.component is Component.UNET for key in modules))
    factors: list[TensorPlan] = []
    scaled: list[ScaledModule] = []
    forms: list[ModuleForm] = []
    for key in sorted(modules):
        tensors = modules[key]
        form = find_form(tensors, targets[key.component][key.path])
        forms.append(form)
        for factor, shape in sorted(form.shapes.items()):
            canonical = Factor.DORA_SCALE if factor is Factor.MAGNITUDE else factor
            factors.append(TensorPlan(*key, canonical, shape, tensors[factor]))
        if form.rank is not None:
            scaled.append(ScaledModule(*key, tensors, form.rank, matched.namings[key]))
        elif Factor.ALPHA in tensors:
            left_out.counts[NO_SCALE] += 1
    alphas = choose_alphas(header, scaled, choices.alpha)
    summary = _summary(
        header,
        kinds=(kind for form in forms for kind in form.kinds),
        naming=matched.tensors_by_naming,
        components=(key.component for key in modules),
        ranks=(form.rank for form in forms),
        alphas=alphas.values or metadata.alphas(header),
    )
    summary = replace(
        summary,
        alpha_note=alphas.note,
        alpha_file=alphas.file_beside,
        asked_alpha=choices.alpha if ASKED in alphas.sources else None,
    )
    return LoraPlan(
        summary,
        tuple(factors),
        alphas.plans,
        dict(left_out.counts),
        has_config_beside=any(source.startswith(CONFIG_FILE) for source in alphas.sources),
    )


def describe_file(header: CheckpointHeader) -> LoraSummary:
    """Describe a LoRA file by its header, without a model to check it with."""
    modules: dict[str, dict[Factor, TensorInfo]] = defaultdict(dict)
    for name, tensor in header.tensors.items():
        found = split_name(name)
        if found is not None and harmless_reason(name) is None:
            modules[found.module][found.factor] = tensor
    places = [component_of(module) for module in modules]
    return _summary(
        header,
        kinds=(kind for tensors in modules.values() for kind in kinds_of(tensors)),
        naming=Counter(naming for _, naming in places),
        components=(component for component, _ in places),
        ranks=(rank_of(tensors) for tensors in modules.values()),
        alphas=metadata.alphas(header),
    )


class _ModuleKey(NamedTuple):
    """A module of the model, as a key that sorts."""

    component: Component
    path: str


@dataclass(frozen=True)
class _Matched:
    """The tensors of a file by module, the convention of each, and how many tensors have which."""

    modules: Mapping[_ModuleKey, ModuleTensors]
    namings: Mapping[_ModuleKey, Naming]
    tensors_by_naming: Counter[Naming]


def _match_tensors(header: CheckpointHeader, names: ModuleNames, left_out: LeftOut) -> _Matched:
    """Return the tensors of each module, and leave out those that have none and may be.

    Raises:
        AddonError: a tensor belongs to no module, or two tensors are the same factor of one.
    """
    modules: dict[_ModuleKey, dict[Factor, TensorInfo]] = defaultdict(dict)
    namings: dict[_ModuleKey, Naming] = {}
    counts: Counter[Naming] = Counter()
    for name, tensor in header.tensors.items():
        reason = harmless_reason(name)
        if reason is not None:
            left_out.counts[reason] += 1
            continue
        found = split_name(name)
        place = found and names.find(found.module)
        if not found or not place:
            (left_out.add_foreign if is_foreign(name) else left_out.add_lost)(name)
            continue
        key = _ModuleKey(place.component, place.path)
        tensors = modules[key]
        twin = tensors.get(found.factor) or tensors.get(_TWINS.get(found.factor, found.factor))
        if twin is not None:
            raise AddonError(
                f"{header.name}: tensors {shorten(twin.name)} and {shorten(name)} are the same "
                "part of one module; one of them is needed."
            )
        tensors[found.factor] = tensor
        namings[key] = place.naming
        counts[place.naming] += 1
    for key in [key for key, tensors in modules.items() if tensors.keys() == {Factor.ALPHA}]:
        del modules[key]
        counts[namings[key]] -= 1
        left_out.counts[LONE_ALPHAS] += 1
    if not modules:
        raise AddonError(f"{header.name} changes no module; a LoRA for SDXL is needed.")
    return _Matched(dict(modules), namings, counts)


_TWINS = {Factor.MAGNITUDE: Factor.DORA_SCALE, Factor.DORA_SCALE: Factor.MAGNITUDE}


def _summary(
    header: CheckpointHeader,
    *,
    kinds: Iterable[str],
    naming: Counter[Naming],
    components: Iterable[Component],
    ranks: Iterable[int | None],
    alphas: tuple[float, ...],
) -> LoraSummary:
    return LoraSummary(
        kinds=tuple(sorted(set(kinds), key=KIND_ORDER.index)),
        naming=naming.most_common(1)[0][0].value if naming else "",
        modules=dict(sorted(Counter(components).items())),
        ranks=tuple(sorted({rank for rank in ranks if rank is not None})),
        alphas=tuple(sorted(set(alphas))),
        notes=metadata.author_notes(header),
    )
