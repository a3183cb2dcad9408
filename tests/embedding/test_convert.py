"""The stored file of an embedding holds the source's numbers, in the right places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpw_sdxl.embedding.convert import convert
from lpw_sdxl.embedding.preflight import examine
from lpw_sdxl.errors import AddonError
from lpw_sdxl.weights.header import read_header


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody reads."""


def stored(tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    source, target = folder / "source.safetensors", folder / "embedding.safetensors"
    save_file(tensors, source)
    convert(examine(read_header(source)), target, silent)
    return load_file(target)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float64, torch.float32),
        (torch.float8_e4m3fn, torch.float32),
    ],
)
def test_the_numbers_are_those_of_the_source(tmp_path: Path, dtype, kept):
    first, second = torch.randn(3, 32).to(dtype), torch.randn(3, 64).to(dtype)
    found = stored({"clip_g": second, "clip_l": first}, tmp_path)
    assert found.keys() == {"text_encoder", "text_encoder_2"}
    for name, source in (("text_encoder", first), ("text_encoder_2", second)):
        assert found[name].dtype == kept
        assert torch.equal(found[name], source.to(kept))


def test_a_single_vector_gets_its_second_dimension(tmp_path: Path):
    found = stored({"clip_l": torch.ones(32), "clip_g": torch.ones(64)}, tmp_path)
    assert [tuple(tensor.shape) for tensor in found.values()] == [(1, 32), (1, 64)]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (float("nan"), torch.float16),
        (float("inf"), torch.bfloat16),
        (float("-inf"), torch.float32),
        (1e200, torch.float64),
        (65_520, torch.float32),  # infinite in float16
    ],
)
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: float, dtype):
    second = torch.zeros(2, 64, dtype=dtype)
    second[1, 63] = value
    with pytest.raises(AddonError, match="tensor clip_g holds NaN or infinity"):
        stored({"clip_l": torch.zeros(2, 32, dtype=dtype), "clip_g": second}, tmp_path)


def test_a_file_cut_meanwhile_is_refused(tmp_path: Path):
    source = tmp_path / "source.safetensors"
    save_file({"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 64)}, source)
    plan = examine(read_header(source))
    source.write_bytes(source.read_bytes()[:-4])
    with pytest.raises(AddonError, match=r"source\.safetensors changed while it was read"):
        convert(plan, tmp_path / "embedding.safetensors", silent)
