"""Random, seeded SDXL checkpoints in the original single-file layout, for tests.

The names and shapes are those that the import's map (`keys.py`) asks for, found from the modules'
own parameters; tests hold them against Diffusers' converter, which doesn't share this code.
Pictures of such a model are noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

import torch

from lpw_sdxl.checkpoint.architecture import (
    SDXL,
    SIZE_EMBEDDING_WIDTH,
    SIZE_EMBEDDINGS,
    Architecture,
    TextEncoderSizes,
    UNetSizes,
    VaeSizes,
)
from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.checkpoint.inspect import SDXL_SIZE
from lpw_sdxl.checkpoint.keys import Shape, sources_of
from lpw_sdxl.checkpoint.kinds import FIRST_ENCODER
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import FileRecord
from lpw_sdxl.weights.tensors import TORCH_DTYPES, tensor_bytes
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors

POSITION_IDS = FIRST_ENCODER + "embeddings.position_ids"

_VOCABULARY = 49408
_POSITIONS = 77
_BIAS_SPREAD = 0.02
_TOKEN_SPREAD = 1.0
_POSITION_SPREAD = 0.3


def _architecture(
    unet_widths: tuple[int, int, int],
    transformer_layers: tuple[int, int, int],
    encoders: tuple[tuple[int, int], tuple[int, int]],
    vae_widths: tuple[int, int, int, int],
) -> Architecture:
    """Make an SDXL of these sizes; an encoder is its width and its number of layers."""
    (first_width, _), (second_width, _) = encoders
    first, second = (
        TextEncoderSizes(width, layers, 4 * width, width, _VOCABULARY, _POSITIONS)
        for width, layers in encoders
    )
    unet = UNetSizes(
        widths=unet_widths,
        transformer_layers=transformer_layers,
        context_width=first_width + second_width,
        added_width=second_width + SIZE_EMBEDDINGS * SIZE_EMBEDDING_WIDTH,
    )
    return Architecture(unet, (first, second), VaeSizes(vae_widths, latent_channels=4))


class SyntheticSize(Enum):
    """How large a model: seconds on a CPU, or SDXL's own size (6.94 GB in float16)."""

    TINY = _architecture((32, 64, 64), (0, 1, 2), ((32, 12), (64, 12)), (32, 32, 64, 64))
    FULL = SDXL


def write_checkpoint(
    path: Path,
    size: SyntheticSize,
    *,
    seed: int = 0,
    dtype: CheckpointDtype = CheckpointDtype.FLOAT16,
    native_size: ImageSize | None = None,
) -> FileRecord:
    """Write a random checkpoint and return its size and SHA-256.

    Args:
        path: the file; its folder exists.
        size: of the model.
        seed: the same seed gives the same bytes with the same torch.
        dtype: of the weights.
        native_size: pixels, told in the header; None leaves it out (1024 x 1024).
    """
    shapes = tensor_shapes(size)
    specs = [
        TensorSpec(name, "I64" if name == POSITION_IDS else dtype.code, shape)
        for name, shape in shapes.items()
    ]
    metadata = {"modelspec.title": f"LPW-SDXL {size.name.lower()} random model, seed {seed}"}
    if native_size is not None:
        metadata["modelspec.resolution"] = f"{native_size.width}x{native_size.height}"
    return write_safetensors(path, specs, _contents(shapes, dtype, seed), metadata)


def tensor_shapes(size: SyntheticSize) -> dict[str, Shape]:
    """Return every tensor of such a checkpoint in the original layout, sorted by name."""
    configs = component_configs(size.value, SDXL_SIZE, CheckpointDtype.FLOAT32)
    shapes: dict[str, Shape] = {POSITION_IDS: (1, _POSITIONS)}
    for component, parameters in parameter_shapes(configs).items():
        for key, shape in parameters.items():
            source = sources_of(component, key)[0]
            shapes[source.key] = source.transform.source_shapes(shape)[0]
    return dict(sorted(shapes.items()))


def _contents(
    shapes: Mapping[str, Shape], dtype: CheckpointDtype, seed: int
) -> Iterator[memoryview]:
    generator = torch.Generator().manual_seed(seed)
    for name, shape in shapes.items():
        if name == POSITION_IDS:
            yield tensor_bytes(torch.arange(_POSITIONS))
        else:
            values = _random_tensor(name, shape, generator)
            yield tensor_bytes(values.to(TORCH_DTYPES[dtype.code]))


def _random_tensor(name: str, shape: Shape, generator: torch.Generator) -> torch.Tensor:
    """Draw weights that keep every layer's output near unit variance, as training starts them."""
    if "embedding" in name and len(shape) == 2:
        spread = _POSITION_SPREAD if "position" in name else _TOKEN_SPREAD
        return torch.randn(shape, generator=generator) * spread
    if len(shape) == 1:
        # Norms alone have a vector for a weight; their scale is 1.
        offset = 1.0 if name.endswith("weight") else 0.0
        return torch.randn(shape, generator=generator) * _BIAS_SPREAD + offset
    fan_in = math.prod(shape[1:])
    return torch.randn(shape, generator=generator) / math.sqrt(fan_in)
