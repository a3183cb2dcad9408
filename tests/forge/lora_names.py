"""What a tensor of a LoRA is called by the tools that write LoRAs; pure, no torch.

Written from the tools' side and apart from `names.py`, which reads the names: each tests the other.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from lpw_sdxl.checkpoint.keys import sources_of
from lpw_sdxl.checkpoint.kinds import UNET
from lpw_sdxl.weights.component import Component

_CLIP = "text_model."
_KOHYA_PREFIXES = {
    Component.UNET: "lora_unet",
    Component.TEXT_ENCODER: "lora_te1",
    Component.TEXT_ENCODER_2: "lora_te2",
}
_KOHYA_ENDINGS = {
    "lora_down": "lora_down.weight",
    "lora_up": "lora_up.weight",
    "lora_mid": "lora_mid.weight",
}
_PEFT_ENDINGS = {
    "lora_down": "lora_A.weight",
    "lora_up": "lora_B.weight",
    "dora_scale": "lora_magnitude_vector",
}
_HALVES = {"lora_down": "down.weight", "lora_up": "up.weight"}
_PROCESSOR_LAYERS = {
    "q_proj": "to_q",
    "k_proj": "to_k",
    "v_proj": "to_v",
    "out_proj": "to_out",
}


class SyntheticNaming(StrEnum):
    """A convention for the names of a LoRA's tensors."""

    KOHYA = "kohya"
    """sd-scripts and LyCORIS: the UNet's blocks counted as Stability's code does."""
    KOHYA_DIFFUSERS = "kohya-diffusers"
    """The same with Diffusers' names of the UNet's blocks."""
    DIFFUSERS = "diffusers"
    """Diffusers since 0.22: a component, PEFT's names, alpha in the metadata."""
    PEFT = "peft"
    """PEFT's own wrapper left in the names; nothing tells alpha."""
    DIFFUSERS_OLD = "diffusers-old"
    """Diffusers 0.17 to 0.21; nothing tells alpha."""
    DIFFUSERS_PROCESSOR = "diffusers-processor"
    """Diffusers up to 0.16: attention only, in its processors; nothing tells alpha."""


def tensor_name(naming: SyntheticNaming, component: Component, path: str, factor: str) -> str:
    """Return the name of a module's factor (a canonical name, or `w_norm` or `b_norm`)."""
    return _NAMES[naming](component, path, factor)


def _kohya(component: Component, path: str, factor: str) -> str:
    if component is Component.UNET:
        source = sources_of(Component.UNET, f"{path}.weight")[0]
        path = source.key.removeprefix(UNET).removesuffix(".weight")
    return _kohya_diffusers(component, path, factor)


def _kohya_diffusers(component: Component, path: str, factor: str) -> str:
    module = f"{_KOHYA_PREFIXES[component]}_{_inner(component, path)}".replace(".", "_")
    return f"{module}.{_KOHYA_ENDINGS.get(factor, factor)}"


def _diffusers(component: Component, path: str, factor: str) -> str:
    return f"{component}.{_inner(component, path)}.{_PEFT_ENDINGS.get(factor, factor)}"


def _peft(component: Component, path: str, factor: str) -> str:
    return f"base_model.model.{_diffusers(component, path, factor)}"


def _diffusers_old(component: Component, path: str, factor: str) -> str:
    layer = "lora" if component is Component.UNET else "lora_linear_layer"
    return f"{component}.{_inner(component, path)}.{layer}.{_HALVES[factor]}"


def _diffusers_processor(component: Component, path: str, factor: str) -> str:
    block, _, layer = _inner(component, path).removesuffix(".0").rpartition(".")
    processor = ".processor" if component is Component.UNET else ""
    layer = _PROCESSOR_LAYERS.get(layer, layer)
    return f"{component}.{block}{processor}.{layer}_lora.{_HALVES[factor]}"


def _inner(component: Component, path: str) -> str:
    """Return a path as training tools know it: Transformers 5.6 dropped `text_model` from some."""
    return path if component is Component.UNET else _CLIP + path.removeprefix(_CLIP)


_NAMES: dict[SyntheticNaming, Callable[[Component, str, str], str]] = {
    SyntheticNaming.KOHYA: _kohya,
    SyntheticNaming.KOHYA_DIFFUSERS: _kohya_diffusers,
    SyntheticNaming.DIFFUSERS: _diffusers,
    SyntheticNaming.PEFT: _peft,
    SyntheticNaming.DIFFUSERS_OLD: _diffusers_old,
    SyntheticNaming.DIFFUSERS_PROCESSOR: _diffusers_processor,
}
