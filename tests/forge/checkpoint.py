"""Random, seeded SDXL checkpoints in the original single-file layout.

The names and shapes are those that the import's map (`keys.py`) asks for, found from the modules'
own parameters; tests hold them against Diffusers' converter, which doesn't share this code.
Pictures of such a model are noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path

import torch

from lpw_sdxl.checkpoint.architecture import (
    CLIP_TOKENS,
    INPAINTING_CHANNELS,
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
from lpw_sdxl.checkpoint.kinds import POSITION_IDS
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.checkpoint.tokenizer_files import MAX_LENGTH
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.files import FileRecord
from lpw_sdxl.weights.tensors import TORCH_DTYPES, tensor_bytes
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors

_BIAS_SPREAD = 0.02
_TOKEN_SPREAD = 1.0
_POSITION_SPREAD = 0.3

_TINY = Architecture(
    unet=UNetSizes(
        widths=(32, 64, 64),
        transformer_layers=(0, 1, 2),
        context_width=32 + 64,
        added_width=64 + SIZE_EMBEDDINGS * SIZE_EMBEDDING_WIDTH,
    ),
    encoders=(
        TextEncoderSizes(32, 12, 128, 32, *CLIP_TOKENS),
        TextEncoderSizes(64, 12, 256, 64, *CLIP_TOKENS),
    ),
    vae=VaeSizes((32, 32, 64, 64), latent_channels=4),
)

_HALF = replace(
    SDXL,
    unet=replace(
        SDXL.unet,
        widths=(160, 320, 640),
        context_width=384 + 640,
        added_width=640 + SIZE_EMBEDDINGS * SIZE_EMBEDDING_WIDTH,
    ),
    encoders=(
        TextEncoderSizes(384, 12, 1536, 384, *CLIP_TOKENS),
        TextEncoderSizes(640, 32, 2560, 640, *CLIP_TOKENS),
    ),
)


class SyntheticSize(Enum):
    """How large a model: seconds on a CPU, SDXL's own size (6.94 GB in float16), half its widths.

    Half has as many tensors as SDXL, in a quarter of its bytes.
    """

    TINY = _TINY
    HALF = _HALF
    FULL = SDXL
    TINY_INPAINTING = replace(_TINY, unet=replace(_TINY.unet, input_channels=INPAINTING_CHANNELS))


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
    shapes: dict[str, Shape] = {POSITION_IDS: (1, MAX_LENGTH)}
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
            yield tensor_bytes(torch.arange(MAX_LENGTH))
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
