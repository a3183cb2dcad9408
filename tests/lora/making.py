"""LoRA files of every kind and naming for the import's tests, from a model's own modules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path

import torch
from safetensors.torch import save_file

from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.checkpoint.inspect import SDXL_SIZE
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.lora.targets import LORA_COMPONENTS, TargetModules, targets_of
from lpw_sdxl.weights.dtypes import DTYPE_BYTES, CheckpointDtype
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo
from tests.forge.checkpoint import SyntheticSize

Shapes = Mapping[str, tuple[int, ...]]

QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "down_blocks.1.resnets.0.conv1"
NORM = "down_blocks.1.attentions.0.norm"
FULL_KOHYA = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
"""`QUERY` by sd-scripts' name: 640 wide in SDXL and 64 in the tiny model."""
MODULE = FULL_KOHYA


@lru_cache
def targets(size: SyntheticSize = SyntheticSize.TINY) -> TargetModules:
    configs = component_configs(size.value, SDXL_SIZE, CheckpointDtype.FLOAT32)
    shapes = parameter_shapes(configs)
    named = {component.value: shapes[component] for component in shapes}
    return targets_of({component: named[component.value] for component in LORA_COMPONENTS})


def header_of(
    shapes: Shapes,
    dtype: str = "F16",
    metadata: Mapping[str, str] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> CheckpointHeader:
    """Build a header without a file."""
    path, tensors, position = Path("some.safetensors"), {}, 0
    for name, shape in shapes.items():
        code = (dtypes or {}).get(name, dtype)
        size = prod(shape) * DTYPE_BYTES[code]
        tensors[name] = TensorInfo(path, name, code, tuple(shape), position, position + size)
        position += size
    return CheckpointHeader(path, position, dict(metadata or {}), tensors)


def pair(
    module: str, size: int = 64, rank: int = 4, down: str = "lora_down", up: str = "lora_up"
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a square layer's two factors."""
    return {f"{module}.{down}.weight": (rank, size), f"{module}.{up}.weight": (size, rank)}


def save(
    path: Path,
    shapes: Shapes,
    *,
    dtype: torch.dtype = torch.float16,
    values: Mapping[str, torch.Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """Write a file of random tensors, or of the values given, and return them."""
    generator = torch.Generator().manual_seed(3)
    tensors = {
        name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()
    }
    tensors |= dict(values or {})
    save_file(tensors, path, dict(metadata) if metadata else None)
    return tensors
