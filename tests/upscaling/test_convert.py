"""The stored file of an upscaler holds the source's numbers, by the store's names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.upscaling.convert import convert, load
from tests.forge.upscalers import EsrganRecipe

from .conftest import Plan

OLD, NEW = (EsrganRecipe(naming).tensors() for naming in ("first", "basic"))


def silent(stage: str, done: int, total: int) -> None:
    """Progress that is not read."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_bit_is_kept(plan: Plan, tmp_path: Path, dtype: torch.dtype):
    judged = plan({name: tensor.to(dtype) for name, tensor in OLD.items()})
    convert(judged, tmp_path / "out.safetensors", silent)
    stored = load_file(tmp_path / "out.safetensors")
    assert stored.keys() == NEW.keys()
    for name, tensor in stored.items():
        assert torch.equal(tensor, NEW[name].to(dtype)), name
        assert tensor.dtype == dtype
    loaded = load(judged)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())


def test_float64_becomes_float32(plan: Plan):
    loaded = load(plan({name: tensor.double() for name, tensor in OLD.items()}))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in NEW.items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(plan: Plan, tmp_path: Path, value: float):
    tensors = EsrganRecipe().tensors()
    tensors["conv_hr.weight"][3, 2, 1, 0] = value
    with pytest.raises(CheckpointError, match=r"tensor conv_hr\.weight holds NaN or infinity"):
        convert(plan(tensors), tmp_path / "out.safetensors", silent)
