"""The change that a LoRA file makes to weights, in float64 and apart from the product's code.

The names of tensors are the writer's own (`forge/lora_names.py`); what is read, and every formula,
is written out here: einsum, Kronecker's product block by block, DoRA's norms one by one.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lpw_sdxl.lora.targets import LORA_COMPONENTS, TargetModules
from lpw_sdxl.weights.component import Component
from tests.forge.lora_names import SyntheticNaming, tensor_name

FACTORS = (
    *("lora_down", "lora_up", "lora_mid", "alpha", "dora_scale"),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("diff", "diff_b", "w_norm", "b_norm"),
)
UNNAMED = {  # what some conventions have no name for
    SyntheticNaming.DIFFUSERS_OLD: ("lora_down", "lora_up"),
    SyntheticNaming.DIFFUSERS_PROCESSOR: ("lora_down", "lora_up"),
}

Modules = dict[tuple[Component, str], dict[str, Tensor]]


def read(file: Path, targets: TargetModules, naming: SyntheticNaming) -> Modules:
    """Read a LoRA's factors in float64 by module, with alpha where the file leaves it out."""
    owners = {
        tensor_name(naming, component, path, factor): (component, path, factor)
        for component in LORA_COMPONENTS
        for path, target in targets[component].items()
        for factor in UNNAMED.get(naming, FACTORS)
        if not (naming in UNNAMED and len(target.weight) == 1)
    }
    modules: Modules = defaultdict(dict)
    with safe_open(file, "pt") as opened:
        notes = opened.metadata() or {}
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            component, path, factor = owners[name]
            modules[component, path][factor] = opened.get_tensor(name).double()
    configured = json.loads(notes.get("lora_adapter_metadata", "{}"))
    for (component, _), factors in modules.items():
        if "dora_scale" in factors and naming in (SyntheticNaming.DIFFUSERS, SyntheticNaming.PEFT):
            factors["dora_scale"] = factors["dora_scale"].flatten()  # PEFT's are always rows
        if f"{component}.lora_alpha" in configured:
            factors["alpha"] = torch.tensor(
                configured[f"{component}.lora_alpha"], dtype=torch.float64
            )
    return dict(modules)


def delta(weight: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
    """Compute the change of a float64 weight at strength 1."""
    plain = plain_delta(factors).reshape(weight.shape)
    if "dora_scale" not in factors:
        return plain
    changed = weight + plain
    magnitudes, result = factors["dora_scale"], changed.clone()
    is_columns = magnitudes.ndim > 1 and len(magnitudes) == 1
    for index, magnitude in enumerate(magnitudes.flatten()):
        if is_columns:
            result[:, index] *= magnitude / changed[:, index].square().sum().sqrt()
        else:
            result[index] *= magnitude / changed[index].square().sum().sqrt()
    return result - weight


def plain_delta(factors: Mapping[str, Tensor]) -> Tensor:
    """Compute the change before DoRA's magnitude."""
    f = factors
    if "diff" in f or "w_norm" in f:
        return f["diff"] if "diff" in f else f["w_norm"]
    if "lora_down" in f:
        scale = f["alpha"] / len(f["lora_down"]) if "alpha" in f else 1.0
        up, down = f["lora_up"].flatten(1), f["lora_down"]
        if "lora_mid" in f:
            return scale * torch.einsum("op,pqhw,qi->oihw", up, f["lora_mid"], down.flatten(1))
        return scale * torch.einsum("or,r...->o...", up, down)
    if "hada_w1_b" in f:
        scale = f["alpha"] / len(f["hada_w1_b"]) if "alpha" in f else 1.0
        sides = []
        for n in (1, 2):
            a, b = f[f"hada_w{n}_a"], f[f"hada_w{n}_b"]
            if f"hada_t{n}" in f:
                sides.append(torch.einsum("po,pqhw,qi->oihw", a, f[f"hada_t{n}"], b))
            else:
                sides.append(torch.einsum("or,ri->oi", a, b))
        return scale * sides[0] * sides[1]
    return kronecker_delta(f)


def kronecker_delta(f: Mapping[str, Tensor]) -> Tensor:
    """Compute w1 (x) w2, block by block."""
    rank = next((len(f[name]) for name in ("lokr_w1_b", "lokr_w2_b") if name in f), None)
    scale = 1.0 if rank is None or "alpha" not in f else f["alpha"] / rank
    left = f["lokr_w1"] if "lokr_w1" in f else f["lokr_w1_a"] @ f["lokr_w1_b"]
    if "lokr_w2" in f:
        right = f["lokr_w2"].flatten(2) if f["lokr_w2"].ndim > 2 else f["lokr_w2"]
    elif "lokr_t2" in f:
        right = torch.einsum("po,pqhw,qi->oihw", f["lokr_w2_a"], f["lokr_t2"], f["lokr_w2_b"])
        right = right.flatten(2)
    else:
        right = f["lokr_w2_a"] @ f["lokr_w2_b"]
    # Its rows are output channels; the kernel's positions stay behind their input channel.
    rows = [torch.cat([number * right for number in row], dim=1) for row in left]
    return scale * torch.cat(rows)


def merged(
    networks: Mapping[Component, nn.Module],
    weighted: Mapping[Component, list[tuple[float, Modules]]],
) -> dict[Component, Any]:
    """Copy networks to float64 and add LoRAs' changes, every one of the base's weights."""
    copies = {}
    for component, module in networks.items():
        twin = copy.deepcopy(module).double()
        layers = dict(twin.named_modules())
        base = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
        for strength, modules in weighted[component]:
            for (owner, path), factors in modules.items():
                if owner is component:
                    name = path if path in layers else path.removeprefix("text_model.")
                    _add(layers[name], base, name, strength, factors)
        copies[component] = twin.eval().requires_grad_(False)
    return copies


def _add(
    layer: nn.Module,
    base: Mapping[str, Tensor],
    name: str,
    strength: float,
    factors: Mapping[str, Tensor],
) -> None:
    with torch.no_grad():
        bias = factors.get("diff_b", factors.get("b_norm"))
        if bias is not None:
            layer.bias.add_(strength * bias)  # type: ignore[operator,union-attr]
        if set(factors) - {"diff_b", "b_norm"}:
            change = delta(base[f"{name}.weight"], factors)
            layer.weight.add_(strength * change)  # type: ignore[operator,union-attr]
