"""Small safetensors files that tests of several folders share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import pytest

from tests.forge.raw import safetensors_bytes

Shapes = Mapping[str, tuple[int, ...]]


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[[Shapes], Path]:
    """Write a small, whole safetensors file whose tensors are zeros."""

    def write(shapes: Shapes, name: str = "model.safetensors", **metadata: str) -> Path:
        entries: dict[str, object] = {"__metadata__": metadata}
        position = 0
        for key, shape in shapes.items():
            end = position + 2 * prod(shape)
            entries[key] = {"dtype": "F16", "shape": shape, "data_offsets": [position, end]}
            position = end
        path = tmp_path / name
        path.write_bytes(safetensors_bytes(entries, bytes(position)))
        return path

    return write


@pytest.fixture(scope="session")
def inpainting_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lpw_sdxl.schema import ImageSize
    from lpw_sdxl.weights.dtypes import CheckpointDtype
    from tests.forge.checkpoint import SyntheticSize, write_checkpoint

    path = tmp_path_factory.mktemp("inpainting") / "inpainting.safetensors"
    dtype, size = CheckpointDtype.FLOAT32, ImageSize(128, 128)
    write_checkpoint(path, SyntheticSize.TINY_INPAINTING, seed=5, dtype=dtype, native_size=size)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # torch comes with it; who needs no checkpoint starts without.
    from lpw_sdxl.schema import ImageSize
    from tests.forge.checkpoint import SyntheticSize, write_checkpoint

    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, seed=7, native_size=ImageSize(96, 128))
    return path
