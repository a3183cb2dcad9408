"""The safetensors writer: read by the library, hashed as written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lpw_sdxl.weights.tensors import tensor_bytes
from lpw_sdxl.weights.writer import TensorSpec, write_safetensors


def test_the_library_reads_what_was_written(tmp_path: Path):
    tensors = {
        "half": torch.randn(3, 5).half(),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "brain": torch.randn(7).bfloat16(),
        "whole": torch.arange(77),
    }
    codes = {"half": "F16", "scalar": "F32", "empty": "F32", "brain": "BF16", "whole": "I64"}
    specs = [TensorSpec(name, codes[name], tuple(t.shape)) for name, t in tensors.items()]
    path = tmp_path / "file.safetensors"
    record = write_safetensors(path, specs, map(tensor_bytes, tensors.values()), {"by": "us"})
    read = load_file(path)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert record.size == path.stat().st_size
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


@pytest.mark.parametrize("contents", [[], [b"1234"], [b"123456", b"78"]], ids=len)
def test_contents_that_do_not_fit_their_specs_are_a_defect(tmp_path: Path, contents: list[bytes]):
    with pytest.raises((AssertionError, ValueError)):
        write_safetensors(tmp_path / "f", [TensorSpec("a", "U8", (6,))], contents, {})
