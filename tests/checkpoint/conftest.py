"""Tiny checkpoints, header-only files of every kind, and a model store of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path

import pytest
import torch

from lpw_sdxl.checkpoint.convert import Conversion, convert
from lpw_sdxl.checkpoint.dtypes import DTYPE_BYTES, CheckpointDtype
from lpw_sdxl.checkpoint.header import CheckpointHeader, TensorInfo, read_header
from lpw_sdxl.checkpoint.synthetic import SyntheticSize, tensor_shapes, write_checkpoint
from lpw_sdxl.schema import ImageSize

Shapes = Mapping[str, tuple[int, ...]]


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody reads."""


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def header_of(shapes: Shapes, dtype: str = "F16", **metadata: str) -> CheckpointHeader:
    """A header without a file: what the planning stages see."""
    tensors, position = {}, 0
    for name, shape in shapes.items():
        size = prod(shape) * DTYPE_BYTES[dtype]
        tensors[name] = TensorInfo(dtype, tuple(shape), position, position + size)
        position += size
    return CheckpointHeader(Path("model.safetensors"), position, metadata, tensors)


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
def tiny_shapes() -> dict[str, tuple[int, ...]]:
    return tensor_shapes(SyntheticSize.TINY)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, seed=7, native_size=ImageSize(96, 128))
    return path


@pytest.fixture(scope="session")
def tiny_directory(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Conversion]:
    directory = tmp_path_factory.mktemp("converted")
    header = read_header(tiny_checkpoint)
    conversion = convert(header, directory, dtype=CheckpointDtype.FLOAT16, progress=silent)
    return directory, conversion


@pytest.fixture
def change_tensor(
    tiny_checkpoint: Path, tmp_path: Path
) -> Callable[[str, Callable[[torch.Tensor], object]], Path]:
    """Copy the tiny checkpoint with one tensor changed in place."""

    def change(name: str, edit: Callable[[torch.Tensor], object]) -> Path:
        info = read_header(tiny_checkpoint).tensors[name]
        content = bytearray(tiny_checkpoint.read_bytes())
        values = torch.frombuffer(content, dtype=torch.uint8)[info.start : info.end]
        tensor = values.clone().view(torch.float16).reshape(info.shape)
        edit(tensor)
        content[info.start : info.end] = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        path = tmp_path / "changed.safetensors"
        path.write_bytes(content)
        return path

    return change


@pytest.fixture
def store_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A BentoML store of this test's own, in this process."""
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.models import ModelStore

    home = tmp_path / "bentoml"
    for folder in ("models", "tmp"):
        (home / folder).mkdir(parents=True)
    with ExitStack() as stack:
        for provider, value in (
            (BentoMLContainer.bentoml_home, str(home)),
            (BentoMLContainer.tmp_bento_store_dir, str(home / "tmp")),
            (BentoMLContainer.model_store_dir, str(home / "models")),
            (BentoMLContainer.model_store, ModelStore(home / "models")),
        ):
            stack.enter_context(provider.patch(value))
        yield home
