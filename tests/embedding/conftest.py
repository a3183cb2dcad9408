"""Headers of embeddings' files."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

from lpw_sdxl.weights.dtypes import DTYPE_BYTES
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo


def header_of(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> CheckpointHeader:
    """A header without a file: what the planning stages see."""
    path, tensors, position = Path("model.safetensors"), {}, 0
    for name, shape in shapes.items():
        size = prod(shape) * DTYPE_BYTES[dtype]
        tensors[name] = TensorInfo(path, name, dtype, tuple(shape), position, position + size)
        position += size
    return CheckpointHeader(path, position, {}, tensors)
