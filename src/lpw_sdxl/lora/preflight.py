"""What is in a LoRA file and whether it fits a model, from its header alone; no torch."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora import notes
from lpw_sdxl.lora.foreign import refuse_foreign, refuse_told
from lpw_sdxl.lora.module_tensors import Tensors, shown
from lpw_sdxl.lora.names import Factor, ModuleNames, Naming, component_of, split
from lpw_sdxl.lora.peft_config import AdapterConfig, read_adapter_configs
from lpw_sdxl.lora.plan import LoraPlan, LoraSummary, TensorPlan
from lpw_sdxl.lora.shapes import ModuleShapes, kinds_of, rank_of, read_module
from lpw_sdxl.lora.targets import Targets
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo

_IGNORED = {
    # Trained together with the LoRA and meant for its prompts (OneTrainer pull request 278); A1111
    # gives them names while the LoRA is on, other tools leave them out.
    "embeddings bundled with it, which `embedding` imports from a file of their own": (
        r"bundle_emb\..*"
    ),
    # SDXL takes the first encoder's hidden states only (Podell et al., 2023, section 2.1).
    "the first text encoder's projection, which SDXL doesn't use": (
        r"(lora_te1[_.]|text_encoder\.|(text_encoders\.)?clip_l\.(transformer\.)?)"
        r"(text_model[_.])?text_projection\..*"
    ),
}
"""Tensors that are left out, by the reason that they are harmless."""
_NO_SCALE = "alphas of modules whose formula has no scale"


def examine(header: CheckpointHeader, targets: Targets) -> LoraPlan:
    """Plan the conversion of a LoRA file for models of these modules.

    Raises:
        UnsupportedCheckpointError: the file is something else, of another base, or of a kind that
            is not served; the sentence names it.
        AddonError: a tensor is unknown, missing its partner, of the wrong shape or defined twice;
            it is named.
    """
    refuse_foreign(header, targets)
    modules, ignored, naming = _match(header, ModuleNames(targets))
    refuse_told(header, has_unet=any(key.component is Component.UNET for key in modules))
    configs = read_adapter_configs(header)
    factors: list[TensorPlan] = []
    alphas: list[TensorPlan] = []
    shapes: list[ModuleShapes] = []
    for key in sorted(modules):
        tensors = modules[key]
        module = read_module(tensors, targets[key.component][key.path])
        shapes.append(module)
        for factor, shape in sorted(module.shapes.items()):
            canonical = Factor.DORA_SCALE if factor is Factor.MAGNITUDE else factor
            factors.append(TensorPlan(*key, canonical, shape, tensors[factor]))
        if module.rank is not None:
            alphas.append(_alpha(header, key, tensors, module.rank, configs))
        elif Factor.ALPHA in tensors:
            ignored[_NO_SCALE] += 1
    summary = _summary(
        header,
        kinds=(kind for shape in shapes for kind in shape.kinds),
        naming=naming,
        components=(key.component for key in modules),
        ranks=(shape.rank for shape in shapes),
        alphas=notes.alphas(header)
        + tuple(plan.value for plan in alphas if plan.value is not None),
    )
    return LoraPlan(summary, tuple(factors), tuple(alphas), dict(ignored))


def describe_file(header: CheckpointHeader) -> LoraSummary:
    """Say what a LoRA file is without a model to hold it against, as far as its header tells."""
    modules: dict[str, dict[Factor, TensorInfo]] = defaultdict(dict)
    for name, tensor in header.tensors.items():
        found = split(name)
        if found is not None and _ignored_as(name) is None:
            modules[found.module][found.factor] = tensor
    places = [component_of(module) for module in modules]
    return _summary(
        header,
        kinds=(kind for tensors in modules.values() for kind in kinds_of(tensors)),
        naming=Counter(naming for _, naming in places),
        components=(component for component, _ in places),
        ranks=(rank_of(tensors) for tensors in modules.values()),
        alphas=notes.alphas(header),
    )


class _Key(NamedTuple):
    """A module of the model."""

    component: Component
    path: str


def _match(
    header: CheckpointHeader, names: ModuleNames
) -> tuple[dict[_Key, dict[Factor, TensorInfo]], Counter[str], Counter[Naming]]:
    """Return the tensors of each module, the unused ones by reason, and the conventions seen.

    Raises:
        AddonError: no module has a tensor's name, or two tensors are the same part of one.
    """
    modules: dict[_Key, dict[Factor, TensorInfo]] = defaultdict(dict)
    ignored: Counter[str] = Counter()
    namings: Counter[Naming] = Counter()
    for name, tensor in header.tensors.items():
        reason = _ignored_as(name)
        if reason is not None:
            ignored[reason] += 1
            continue
        found = split(name)
        place = found and names.find(found.module)
        if not found or not place:
            raise AddonError(
                f"{header.name}: tensor {shown(name)} belongs to no module of SDXL's UNet or text "
                "encoders in any naming that we know; every tensor must."
            )
        tensors = modules[_Key(place.component, place.path)]
        twin = tensors.get(found.factor) or tensors.get(_TWINS.get(found.factor, found.factor))
        if twin is not None:
            raise AddonError(
                f"{header.name}: tensors {shown(twin.name)} and {shown(name)} are the same part "
                "of one module; one of them is needed."
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
    key: _Key,
    tensors: Tensors,
    rank: int,
    configs: Mapping[Component, AdapterConfig],
) -> TensorPlan:
    """Return a module's alpha: the tensor's, PEFT's, or the rank, which makes the scale 1.

    Raises:
        AddonError: a tensor and the metadata both tell it, or they don't fit.
    """
    source, config = tensors.get(Factor.ALPHA), configs.get(key.component)
    if config is None:
        return TensorPlan(*key, Factor.ALPHA, (), source, None if source else float(rank))
    if source is not None or Factor.DOWN not in tensors:
        # Diffusers refuses both together, too: nobody knows which one is meant.
        extra = source or next(iter(tensors.values()))
        raise AddonError(
            f"{header.name}: the scale of tensor {shown(extra.name)} is told by the file and by "
            "the metadata of a PEFT LoRA; one of them is needed."
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
        kinds=tuple(sorted(set(kinds), key=_KIND_ORDER.index)),
        naming=naming.most_common(1)[0][0].value if naming else "",
        modules=dict(sorted(Counter(components).items())),
        ranks=tuple(sorted({rank for rank in ranks if rank is not None})),
        alphas=tuple(sorted(set(alphas))),
        notes=notes.author_notes(header),
    )


_KIND_ORDER = ("LoRA", "LoCon", "DoRA", "LoHa", "LoKr", "full")
