"""The names of a LoRA file's tensors in each convention; pure, no torch.

A name is a prefix for the component, the module's path and the factor: `lora_unet_` +
`input_blocks_4_1_proj_in` + `lora_down.weight`. Prefixes and factors are tables. Paths
are never parsed, but looked up among the names of the model's own modules in each convention.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from lpw_sdxl.checkpoint.keys import sources_of
from lpw_sdxl.checkpoint.kinds import UNET
from lpw_sdxl.lora.forms import Factor
from lpw_sdxl.lora.targets import LORA_COMPONENTS, TargetModules
from lpw_sdxl.weights.component import Component


class Naming(StrEnum):
    """A convention of names; the value is for people to read."""

    KOHYA = "kohya"
    LYCORIS = "LyCORIS"
    COMFYUI = "ComfyUI"
    DIFFUSERS = "Diffusers"
    PEFT = "PEFT"


class TensorName(NamedTuple):
    """A tensor's name in two parts: the module's name in the file, and the tensor's role."""

    module: str
    factor: Factor


class FoundModule(NamedTuple):
    """A module of the model, and the convention by which it was found."""

    component: Component
    path: str
    naming: Naming


_ENDINGS = {
    # Every tool appends `.weight` to these three.
    **{factor.value: factor for factor in set(Factor) - {Factor.DOWN, Factor.UP, Factor.MID}},
    "lora_down.weight": Factor.DOWN,
    "lora_up.weight": Factor.UP,
    "lora_mid.weight": Factor.MID,
    "lora_A.weight": Factor.DOWN,
    "lora_B.weight": Factor.UP,
    "lora_magnitude_vector.weight": Factor.MAGNITUDE,
    # Diffusers 0.17 to 0.21, in the UNet and in the text encoders.
    "lora.down.weight": Factor.DOWN,
    "lora.up.weight": Factor.UP,
    "lora_linear_layer.down.weight": Factor.DOWN,
    "lora_linear_layer.up.weight": Factor.UP,
    # LyCORIS' names for changes of a normalisation.
    "w_norm": Factor.DIFF,
    "b_norm": Factor.DIFF_B,
    # A full difference under the names of parameters instead of modules.
    "weight.diff": Factor.DIFF,
    "bias.diff": Factor.DIFF_B,
}
_WITH_ADAPTER = ("lora_A", "lora_B", "lora_magnitude_vector")
"""PEFT inserts the adapter's name, mostly `default`, behind these unless it strips it."""

_PROCESSOR_LAYERS = {
    f"to_{layer}_lora.{half}.weight": (path, factor)
    for layer, path in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0"))
    for half, factor in (("down", Factor.DOWN), ("up", Factor.UP))
}
"""Diffusers of early 2023 kept the factors in the attention's processor."""

_UNET_ALONE = {"": Component.UNET}
_KOHYA = dict(zip(("unet", "te1", "te2"), LORA_COMPONENTS, strict=True))
_COMFYUI = dict(zip(("clip_l", "clip_g"), LORA_COMPONENTS[1:], strict=True))
_DIFFUSERS = {component.value: component for component in LORA_COMPONENTS}
_CONVENTIONS: Sequence[tuple[Naming, Mapping[str, Component], Sequence[str]]] = (
    # sd-scripts, and OneTrainer's and LyCORIS' files for it; Diffusers' script for training with
    # new tokens writes the same with dots.
    (Naming.KOHYA, _KOHYA, ("lora_{}_", "lora_{}.")),
    # A1111's own names of the UNet's modules, which a family of sliders has beside sd-scripts'.
    (Naming.KOHYA, _UNET_ALONE, ("diffusion_model_{}",)),
    (Naming.LYCORIS, _KOHYA, ("lycoris_{}_",)),
    (Naming.LYCORIS, _UNET_ALONE, ("lycoris_{}",)),
    (Naming.COMFYUI, _UNET_ALONE, ("diffusion_model.{}", "model.diffusion_model.{}")),
    (Naming.COMFYUI, _COMFYUI, ("{}.", "{}.transformer.")),
    (Naming.COMFYUI, _COMFYUI, ("text_encoders.{}.", "text_encoders.{}.transformer.")),
    (Naming.DIFFUSERS, _DIFFUSERS, ("{}.",)),
    (Naming.PEFT, _DIFFUSERS, ("{}.base_model.model.", "base_model.model.{}.")),
    (Naming.PEFT, _UNET_ALONE, ("base_model.model.{}",)),
    # A UNet's file that `save_attn_procs` or `save_lora_adapter` wrote.
    (Naming.DIFFUSERS, _UNET_ALONE, ("{}",)),
)
"""For each convention, the names of the components and the prefixes built from them."""

_PREFIXES = {
    beginning.format(name): (component, naming)
    for naming, names, beginnings in _CONVENTIONS
    for name, component in names.items()
    for beginning in beginnings
}
_LONGEST_FIRST = sorted(_PREFIXES, key=len, reverse=True)
_NETWORK_NAME = re.compile(
    "|".join(re.escape(prefix) for prefix in _LONGEST_FIRST if prefix)
    + r"|(down|mid|up|input|middle|output)_blocks?[._]|(conv|norm)_(in|out|norm_out)(\.|$)"
    + r"|(time|add)_embedding[._]|(time|label)_emb(ed)?[._]\d|out\.\d|text_model[._]"
)
"""The beginning of a name that is one of SDXL's networks', or of their modules'."""

_CLIP = "text_model."
_CLIP_ATTENTION = {
    # Diffusers up to 0.21 named these by the UNet's layers.
    ".self_attn.q_proj": ".self_attn.to_q",
    ".self_attn.k_proj": ".self_attn.to_k",
    ".self_attn.v_proj": ".self_attn.to_v",
    ".self_attn.out_proj": ".self_attn.to_out.0",
}


def split_name(name: str) -> TensorName | None:
    """Split a tensor's name into module and factor; None if no convention has its ending."""
    parts = name.rsplit(".", 4)
    if len(parts) > 3 and parts[-1] == "weight" and parts[-3] in _WITH_ADAPTER:
        del parts[-2]
    elif len(parts) > 2 and parts[-2] == "lora_magnitude_vector" and parts[-1] != "weight":
        del parts[-1]
    for count in (3, 2, 1):
        module, ending = ".".join(parts[:-count]), ".".join(parts[-count:])
        if not module:
            continue
        if ending in _PROCESSOR_LAYERS:
            layer, factor = _PROCESSOR_LAYERS[ending]
            return TensorName(f"{module.removesuffix('.processor')}.{layer}", factor)
        if ending in _ENDINGS:
            return TensorName(module, _ENDINGS[ending])
    return None


def component_of(module: str) -> tuple[Component, Naming]:
    """Return the component and the naming of a module by the beginning of its name alone."""
    return next(_PREFIXES[prefix] for prefix in _LONGEST_FIRST if module.startswith(prefix))


def has_network_name(name: str) -> bool:
    """Return whether a name begins as those of SDXL's networks or of their modules do."""
    return _NETWORK_NAME.match(name) is not None


class ModuleNames:
    """The modules of a model, by their names in each convention."""

    def __init__(self, targets: TargetModules) -> None:
        self._paths = {
            component: _index(component, list(targets[component])) for component in targets
        }

    def find(self, module: str) -> FoundModule | None:
        """Find the model's module by its name in a file; None if no module has that name."""
        for prefix in filter(module.startswith, _LONGEST_FIRST):
            component, naming = _PREFIXES[prefix]
            path = self._paths[component].get(_fold(module[len(prefix) :]))
            if path is not None:
                return FoundModule(component, path, naming)
        return None


def _index(component: Component, paths: list[str]) -> dict[str, str]:
    """Return the component's paths by all of their names, folded."""
    index: dict[str, str] = {}
    spellings = _unet_spellings if component is Component.UNET else _encoder_spellings
    for path in paths:
        for name in spellings(path):
            # Two modules of one name would make a file ambiguous.
            assert index.setdefault(_fold(name), path) == path, name
    return index


def _fold(name: str) -> str:
    """Return a name as kohya's tools write it, with underscores for dots."""
    return name.replace(".", "_")


def _unet_spellings(path: str) -> Iterator[str]:
    """Yield Diffusers' name and that of Stability's code, which sd-scripts and ComfyUI use."""
    yield path
    source = sources_of(Component.UNET, f"{path}.weight")[0]
    yield source.key.removeprefix(UNET).removesuffix(".weight")


def _encoder_spellings(path: str) -> Iterator[str]:
    """Yield a path with and without `text_model`, which Transformers 5.6 removed from CLIP."""
    inner = path.removeprefix(_CLIP)
    for name in (inner, _CLIP + inner):
        yield name
        for new, old in _CLIP_ATTENTION.items():
            if name.endswith(new):
                yield name.removesuffix(new) + old
