"""Examination of a LoRA file by its header alone: its contents, its fit to a model; no torch."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora import metadata
from lpw_sdxl.lora.file_tensor import shorten
from lpw_sdxl.lora.forms import KIND_ORDER, Factor, ModuleTensors
from lpw_sdxl.lora.module_form import ModuleForm, find_form, kinds_of, rank_of
from lpw_sdxl.lora.names import ModuleNames, Naming, component_of, split_name
from lpw_sdxl.lora.peft_config import AdapterConfig, read_adapter_configs
from lpw_sdxl.lora.plan import LoraPlan, LoraSummary, TensorPlan
from lpw_sdxl.lora.refusals import refuse_by_metadata, refuse_by_tensors
from lpw_sdxl.lora.targets import TargetModules
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo

_IGNORED = {
    # Trained together with the LoRA and meant for its prompts (OneTrainer pull request 278); A1111
    # makes them usable while the LoRA is active, other tools ignore them.
    "embeddings bundled with it, which `embedding` imports from a file of their own": (
        r"bundle_emb\..*"
    ),
    # SDXL takes the first encoder's hidden states only (Podell et al., 2023, section 2.1).
    "the first text encoder's projection, which SDXL doesn't use": (
        r"(lora_te1[_.]|text_encoder\.|(text_encoders\.)?clip_l\.(transformer\.)?)"
        r"(text_model[_.])?text_projection\..*"
    ),
}
"""Patterns of tensors that are left out, by the reason why that is harmless."""
_NO_SCALE = "alphas of modules whose formula has no scale"


def examine(header: CheckpointHeader, targets: TargetModules) -> LoraPlan:
    """Plan the conversion of a LoRA file for models with these modules.

    Raises:
        UnsupportedCheckpointError: the file is something else, for another base model, or of a
            form that is not served; the message names it.
        AddonError: a tensor is unknown, lacks its partner, has a wrong shape or is there twice; the
            message names it.
    """
    refuse_by_tensors(header, targets)
    modules, ignored, naming = _match_tensors(header, ModuleNames(targets))
    refuse_by_metadata(header, has_unet=any(key.component is Component.UNET for key in modules))
    configs = read_adapter_configs(header)
    factors: list[TensorPlan] = []
    alphas: list[TensorPlan] = []
    forms: list[ModuleForm] = []
    for key in sorted(modules):
        tensors = modules[key]
        form = find_form(tensors, targets[key.component][key.path])
        forms.append(form)
        for factor, shape in sorted(form.shapes.items()):
            canonical = Factor.DORA_SCALE if factor is Factor.MAGNITUDE else factor
            factors.append(TensorPlan(*key, canonical, shape, tensors[factor]))
        if form.rank is not None:
            alphas.append(_alpha(header, key, tensors, form.rank, configs))
        elif Factor.ALPHA in tensors:
            ignored[_NO_SCALE] += 1
    summary = _summary(
        header,
        kinds=(kind for form in forms for kind in form.kinds),
        naming=naming,
        components=(key.component for key in modules),
        ranks=(form.rank for form in forms),
        alphas=metadata.alphas(header)
        + tuple(plan.value for plan in alphas if plan.value is not None),
    )
    return LoraPlan(summary, tuple(factors), tuple(alphas), dict(ignored))


def describe_file(header: CheckpointHeader) -> LoraSummary:
    """Describe a LoRA file by its header, without a model to check it with."""
    modules: dict[str, dict[Factor, TensorInfo]] = defaultdict(dict)
    for name, tensor in header.tensors.items():
        found = split_name(name)
        if found is not None and _ignored_as(name) is None:
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


def _match_tensors(
    header: CheckpointHeader, names: ModuleNames
) -> tuple[dict[_ModuleKey, dict[Factor, TensorInfo]], Counter[str], Counter[Naming]]:
    """Return the tensors of each module, and counts: of unused tensors by reason, of conventions.

    Raises:
        AddonError: a tensor belongs to no module, or two tensors are the same factor of one.
    """
    modules: dict[_ModuleKey, dict[Factor, TensorInfo]] = defaultdict(dict)
    ignored: Counter[str] = Counter()
    namings: Counter[Naming] = Counter()
    for name, tensor in header.tensors.items():
        reason = _ignored_as(name)
        if reason is not None:
            ignored[reason] += 1
            continue
        found = split_name(name)
        place = found and names.find(found.module)
        if not found or not place:
            raise AddonError(
                f"{header.name}: tensor {shorten(name)} belongs to no module of SDXL's UNet or "
                "text encoders in any naming that we know; every tensor must."
            )
        tensors = modules[_ModuleKey(place.component, place.path)]
        twin = tensors.get(found.factor) or tensors.get(_TWINS.get(found.factor, found.factor))
        if twin is not None:
            raise AddonError(
                f"{header.name}: tensors {shorten(twin.name)} and {shorten(name)} are the same "
                "part of one module; one of them is needed."
            )
        tensors[found.factor] = tensor
        namings[place.naming] += 1
    if not modules:
        raise AddonError(f"{header.name} changes no module; a LoRA for SDXL is needed.")
    return dict(modules), ignored, namings


_TWINS = {Factor.MAGNITUDE: Factor.DORA_SCALE, Factor.DORA_SCALE: Factor.MAGNITUDE}


def _ignored_as(name: str) -> str | None:
    return next((why for why, pattern in _IGNORED.items() if re.fullmatch(pattern, name)), None)


def _alpha(
    header: CheckpointHeader,
    key: _ModuleKey,
    tensors: ModuleTensors,
    rank: int,
    configs: Mapping[Component, AdapterConfig],
) -> TensorPlan:
    """Return a module's alpha: the tensor's, PEFT's, or the rank, which makes the scale 1.

    Raises:
        AddonError: both a tensor and the metadata give it, or they contradict each other.
    """
    source, config = tensors.get(Factor.ALPHA), configs.get(key.component)
    if config is None:
        return TensorPlan(*key, Factor.ALPHA, (), source, None if source else float(rank))
    if source is not None or Factor.DOWN not in tensors:
        # Diffusers refuses both together, too, since it is not clear which one counts.
        extra = source or next(iter(tensors.values()))
        raise AddonError(
            f"{header.name}: the scale of tensor {shorten(extra.name)} is given both by the file "
            "and by the metadata of a PEFT LoRA; one of them is needed."
        )
    has_magnitude = not tensors.keys().isdisjoint(_TWINS)
    value = config.alpha_of(key.path, rank, has_magnitude=has_magnitude)
    return TensorPlan(*key, Factor.ALPHA, (), None, value)


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
