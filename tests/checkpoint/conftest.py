"""Tiny checkpoints, header-only files of every kind, and a model store of the test's own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from lpw_sdxl.checkpoint import skeleton
from lpw_sdxl.checkpoint.convert import Conversion, convert, prepare
from lpw_sdxl.checkpoint.selection import Selection, open_checkpoint
from lpw_sdxl.checkpoint.tokenizer_files import write_tokenizer
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import DTYPE_BYTES, CheckpointDtype
from lpw_sdxl.weights.files import FileRecord
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo, read_header
from lpw_sdxl.weights.progress import Progress
from tests.forge.checkpoint import SyntheticSize, tensor_shapes, write_checkpoint
from tests.forge.fixtures import Shapes

Tensors = dict[str, torch.Tensor]
Weights = dict[Component, Tensors]
Save = Callable[..., Path]

FP16 = CheckpointDtype.FLOAT16
BF16 = CheckpointDtype.BFLOAT16
FP32 = CheckpointDtype.FLOAT32
AS_IT_IS = Selection()


def silent(stage: str, done: int, total: int) -> None:
    """Progress that is not shown."""


def header_of(shapes: Shapes, dtype: str = "F16", **metadata: str) -> CheckpointHeader:
    """A header without a file: what the planning stages see."""
    path, tensors, position = Path("model.safetensors"), {}, 0
    for name, shape in shapes.items():
        size = prod(shape) * DTYPE_BYTES[dtype]
        tensors[name] = TensorInfo(path, name, dtype, tuple(shape), position, position + size)
        position += size
    return CheckpointHeader(path, position, metadata, tensors)


@dataclass(frozen=True)
class Converted:
    """A model directory, the conversion that made it, and what that says it wrote."""

    directory: Path
    conversion: Conversion
    files: dict[str, FileRecord]


def convert_file(
    path: Path,
    directory: Path,
    dtype: CheckpointDtype = FP16,
    selection: Selection = AS_IT_IS,
    progress: Progress = silent,
) -> Converted:
    """Convert as the import does, without store and verification."""
    checkpoint = open_checkpoint(path, selection)
    conversion = prepare(checkpoint, dtype)
    return Converted(directory, conversion, convert(conversion, directory, progress))


def weights_of(directory: Path) -> Weights:
    return {component: load_file(directory / component.weights_file) for component in Component}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same_bits(ones: Tensors, others: Tensors) -> bool:
    """Tell whether two sets of tensors agree to the last bit, in names, shapes and dtypes."""
    return ones.keys() == others.keys() and all(
        (one.dtype, one.shape) == (others[key].dtype, others[key].shape)
        and torch.equal(
            one.contiguous().reshape(-1).view(torch.uint8),
            others[key].contiguous().reshape(-1).view(torch.uint8),
        )
        for key, one in ones.items()
    )


def by_diffusers(path: Path, config: Path, dtype: torch.dtype) -> Weights:
    """Every tensor as Diffusers' own converter gives it, which shares no code with ours."""
    pipeline = StableDiffusionXLPipeline.from_single_file(
        path, config=str(config), local_files_only=True, dtype=dtype
    )
    return {component: dict(getattr(pipeline, component).state_dict()) for component in Component}


@pytest.fixture(scope="session", autouse=True)
def _work_that_repeats_is_done_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what every conversion makes anew: modules' shapes and tokenizers, half of its time.

    `test_tokenizer_files.py` and a first conversion test the real ones.
    """
    shapes_of, shapes = skeleton._shapes, {}
    kept = tmp_path_factory.mktemp("tokenizers")

    def known_shapes(component: Component, config: dict[str, object]) -> dict[str, object]:
        key = component, json.dumps(config, sort_keys=True)
        if key not in shapes:
            shapes[key] = shapes_of(component, config)
        return dict(shapes[key])

    def copy_tokenizer(directory: Path, *, pad_token: str) -> None:
        folder = kept / pad_token.strip("<|>")
        if not folder.exists():
            write_tokenizer(folder, pad_token=pad_token)
        shutil.copytree(folder, directory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skeleton, "_shapes", known_shapes)
        patch.setattr("lpw_sdxl.checkpoint.convert.write_tokenizer", copy_tokenizer)
        patch.setattr(os, "fsync", lambda _: None)  # no test cuts the power
        yield


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write tensors with the safetensors library."""

    def save(tensors: Tensors, name: str = "made.safetensors", **metadata: str) -> Path:
        path = tmp_path / name
        save_file({key: t.contiguous() for key, t in tensors.items()}, path, metadata or None)
        return path

    return save


@pytest.fixture(scope="session")
def tiny_shapes() -> dict[str, tuple[int, ...]]:
    return tensor_shapes(SyntheticSize.TINY)


@pytest.fixture(scope="session")
def _tiny_tensors(tiny_checkpoint: Path) -> Tensors:
    return load_file(tiny_checkpoint)


@pytest.fixture
def tiny_tensors(_tiny_tensors: Tensors) -> Tensors:
    """The tiny checkpoint's tensors; the dictionary is the test's own, the tensors are shared."""
    return dict(_tiny_tensors)


@pytest.fixture(scope="session")
def second_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("second") / "second.safetensors"
    write_checkpoint(path, SyntheticSize.TINY, seed=8)
    return path


@pytest.fixture(scope="session")
def converted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert_file(tiny_checkpoint, tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="session")
def written(converted: Converted) -> Weights:
    return weights_of(converted.directory)


@pytest.fixture(scope="session")
def reference(tiny_checkpoint: Path, converted: Converted) -> Weights:
    return by_diffusers(tiny_checkpoint, converted.directory, torch.float16)


@pytest.fixture
def model_copy(converted: Converted, tmp_path: Path) -> Path:
    """A copy of the converted directory that a test may damage."""
    return shutil.copytree(converted.directory, tmp_path / "copy")


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
