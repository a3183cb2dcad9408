"""Random, seeded LoRA files of every kind and naming.

The same seed and kind are the same LoRA under every naming. It teaches a model nothing: pictures
change visibly, and that is all.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lpw_sdxl.lora.targets import LORA_COMPONENTS, TargetModule, TargetModules
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import FileRecord
from lpw_sdxl.weights.tensors import TORCH_DTYPES, tensor_bytes
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors
from tests.forge.lora_factors import Factors, Recipe, SyntheticKind, draw_factors
from tests.forge.lora_names import SyntheticNaming, tensor_name

_ATTENTION = (".attn1.", ".attn2.", ".self_attn.")
_TRANSFORMER = (".attentions.", ".self_attn.", ".mlp.")
_CONVOLUTIONAL = (".resnets.", ".downsamplers.", ".upsamplers.")

_PRODUCTS = frozenset({SyntheticKind.LORA, SyntheticKind.LOCON})
_WITH_ROWS = _PRODUCTS | {SyntheticKind.DORA}
_KINDS = {
    SyntheticNaming.KOHYA: frozenset(SyntheticKind),
    SyntheticNaming.KOHYA_DIFFUSERS: frozenset(SyntheticKind),
    SyntheticNaming.DIFFUSERS: _WITH_ROWS,
    SyntheticNaming.PEFT: _WITH_ROWS | {SyntheticKind.LOHA, SyntheticKind.LOKR},
    SyntheticNaming.DIFFUSERS_OLD: _PRODUCTS,
    SyntheticNaming.DIFFUSERS_PROCESSOR: frozenset({SyntheticKind.LORA}),
}
"""The kinds that files of a convention hold."""
_DORA = (SyntheticKind.DORA, SyntheticKind.DORA_COLUMNS)
_KOHYA = (SyntheticNaming.KOHYA, SyntheticNaming.KOHYA_DIFFUSERS)
_SCALED = ("lora_up", "hada_w1_a", "lokr_w1", "lokr_w1_a")
"""The factor that takes the scale where nothing tells alpha; a module has one of them."""
_NORM_NAMES = {"diff": "w_norm", "diff_b": "b_norm"}
_ALGORITHMS = {SyntheticKind.LOHA: "loha", SyntheticKind.LOKR: "lokr", SyntheticKind.FULL: "full"}


class Module(NamedTuple):
    """A module that a LoRA changes."""

    component: Component
    path: str
    target: TargetModule


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """What a random LoRA is like.

    Attributes:
        kind: of the LoRA; a full one changes biases and norms too.
        naming: of its tensors. Peft, old Diffusers and its processors can't tell alpha and hold
            factors scaled by alpha / rank, which is exact for a power of two (but in float16's
            smallest numbers).
        rank: of every product.
        alpha: scales the change, over `rank`; positive.
        strength: standard deviation of the change over that of a random model's weight.
        components: those that it changes.
        has_convolutions: change the UNet's resnets and samplers too; None for a LoCon alone.
        is_attention_only: change nothing but the attention's four matrices, as Diffusers' own
            training does.
        is_tucker: convolutions take Tucker's form.
        seed: the same seed gives the same bytes with the same torch.
        dtype: of the tensors; alpha is float32.
        metadata: notes that are added to the usual ones or replace them.
    """

    kind: SyntheticKind = SyntheticKind.LORA
    naming: SyntheticNaming = SyntheticNaming.KOHYA
    rank: int = 4
    alpha: float = 2.0
    strength: float = 0.5
    components: tuple[Component, ...] = LORA_COMPONENTS
    has_convolutions: bool | None = None
    is_attention_only: bool = False
    is_tucker: bool = False
    seed: int = 0
    dtype: CheckpointDtype = CheckpointDtype.FLOAT16
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """Return what a module's factors are drawn by."""
        return Recipe(self.kind, self.rank, self.alpha, self.strength, self.is_tucker)

    @property
    def marks(self) -> tuple[str, ...]:
        """Return what the paths of the modules that it changes hold one of."""
        is_attention = self.is_attention_only or self.naming is SyntheticNaming.DIFFUSERS_PROCESSOR
        has_convolutions = self.has_convolutions
        if has_convolutions is None:
            has_convolutions = self.kind is SyntheticKind.LOCON
        return (
            *(_ATTENTION if is_attention else _TRANSFORMER),
            *(_CONVOLUTIONAL if has_convolutions else ()),
        )


_USUAL = LoraOptions()


def write_lora(path: Path, targets: TargetModules, options: LoraOptions = _USUAL) -> FileRecord:
    """Write a random LoRA for these modules of a model; return its size and SHA-256.

    The file's folder exists. All of it is in memory once.

    Raises:
        ValueError: files of this naming don't hold this kind.
    """
    naming, recipe = options.naming, options.recipe
    if recipe.kind not in _KINDS[naming] or (recipe.is_tucker and naming not in _KOHYA):
        kind = "Tucker forms" if recipe.is_tucker else recipe.kind
        raise ValueError(f"No file in {naming} naming holds {kind}.")
    modules = list(_modules(targets, options))
    tensors = {
        tensor_name(naming, module.component, module.path, factor): tensor.to(
            torch.float32 if factor == "alpha" else TORCH_DTYPES[options.dtype.code]
        )
        for module in modules
        for factor, tensor in _as_written(naming, recipe, _draw(options, module)).items()
    }
    return _write(path, tensors, _notes(naming, recipe, modules) | dict(options.metadata))


def _modules(targets: TargetModules, options: LoraOptions) -> Iterator[Module]:
    has_norms = options.kind is SyntheticKind.FULL
    for component in options.components:
        for path, target in targets[component].items():
            is_marked = any(mark in f".{path}." for mark in options.marks)
            if is_marked and (has_norms or len(target.weight) > 1):
                yield Module(component, path, target)


def _draw(options: LoraOptions, module: Module) -> Factors:
    """Draw a module's factors, whatever other modules there are; the seed holds its full name."""
    name = tensor_name(SyntheticNaming.DIFFUSERS, module.component, module.path, "")
    seed = zlib.crc32(f"{options.seed}/{name}".encode())
    return draw_factors(options.recipe, module.target, seed)


def _as_written(naming: SyntheticNaming, recipe: Recipe, factors: Factors) -> Factors:
    """Bring canonical factors into the form that a convention has for them."""
    if naming in _KOHYA:
        is_norm = "diff" in factors and factors["diff"].ndim == 1
        return {_NORM_NAMES.get(name, name) if is_norm else name: factors[name] for name in factors}
    written = {name: factor for name, factor in factors.items() if name != "alpha"}
    if naming is not SyntheticNaming.DIFFUSERS and not {"lokr_w1", "lokr_w2"} <= set(written):
        scaled = next(name for name in _SCALED if name in written)
        written[scaled] = written[scaled] * recipe.scale
    if "dora_scale" in written:
        written["dora_scale"] = _as_magnitude_vector(written["dora_scale"])
    return written


def _as_magnitude_vector(scale: Tensor) -> Tensor:
    """Return `[out, 1]` as PEFT's `[out]`, `[out, 1, 1, 1]` as its `[1, out, 1, 1]`."""
    return scale.reshape(-1) if scale.ndim == 2 else scale.transpose(0, 1)


def _notes(naming: SyntheticNaming, recipe: Recipe, modules: Sequence[Module]) -> dict[str, str]:
    """Return the metadata that such files carry."""
    if naming in _KOHYA:
        return _kohya_notes(recipe)
    if naming is SyntheticNaming.DIFFUSERS:
        return _diffusers_notes(recipe, modules)
    return {"format": "pt"}


def _kohya_notes(recipe: Recipe) -> dict[str, str]:
    arguments = {"algo": _ALGORITHMS.get(recipe.kind, "lora"), "use_tucker": recipe.is_tucker}
    if recipe.kind in _DORA:
        # LyCORIS' `wd_on_out`.
        arguments |= {"dora_wd": True, "wd_on_output": recipe.kind is SyntheticKind.DORA}
    is_plain = recipe.kind is SyntheticKind.LORA
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": f"LPW-SDXL random {recipe.kind}",
        "modelspec.resolution": "1024x1024",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora" if is_plain else "lycoris.kohya",
        "ss_network_dim": str(recipe.rank),
        "ss_network_alpha": str(recipe.alpha),
        "ss_network_args": json.dumps({} if is_plain else arguments),
    }


def _diffusers_notes(recipe: Recipe, modules: Sequence[Module]) -> dict[str, str]:
    """Return what Diffusers writes of PEFT's configurations, a component before each key."""
    layers: dict[Component, set[str]] = {}
    for module in modules:
        layers.setdefault(module.component, set()).add(_layer(module.path))
    note = {
        f"{component}.{key}": value
        for component, names in layers.items()
        for key, value in _peft_configuration(recipe, sorted(names)).items()
    }
    return {"format": "pt", "lora_adapter_metadata": json.dumps(note, indent=2, sort_keys=True)}


def _peft_configuration(recipe: Recipe, layers: list[str]) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "target_modules": layers,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "use_dora": recipe.kind is SyntheticKind.DORA,
        "bias": "none",
    }


def _layer(path: str) -> str:
    """Return the end of a path that PEFT knows a kind of layer by: `to_q`, `to_out.0`."""
    *_, outer, last = path.split(".")
    return f"{outer}.{last}" if last.isdigit() else last


def _write(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> FileRecord:
    codes = {dtype: code for code, dtype in TORCH_DTYPES.items()}
    specs = [
        TensorSpec(name, codes[tensor.dtype], tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    contents = (tensor_bytes(tensor.contiguous()) for tensor in tensors.values())
    return write_safetensors(path, specs, contents, notes)
