"""A network works in the dtype that holds its numbers, and says where none does."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from lpw_sdxl.errors import AddonError, GenerationError
from lpw_sdxl.upscaling.design import Design, Family
from tests.forge.upscalers import CompactRecipe, EsrganRecipe

from .conftest import on_cpu

GREY = np.full((8, 9, 3), 128, np.uint8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("recipe", [EsrganRecipe(), CompactRecipe()], ids=["esrgan", "compact"])
def test_half_precision_is_near_float32(recipe: EsrganRecipe | CompactRecipe, dtype: torch.dtype):
    half, full = on_cpu(recipe.tensors(), dtype), on_cpu(recipe.tensors())
    enlarged = half.enlarge(GREY)
    assert (half.dtype, enlarged.dtype) == (dtype, torch.float32)
    assert (enlarged - full.enlarge(GREY)).abs().max() < (0.004 if dtype is torch.float16 else 0.04)


@pytest.mark.parametrize("layer", ["conv_hr", "conv_up2"], ids=["weights", "features"])
def test_what_half_precision_cannot_hold_is_computed_in_float32(
    layer: str, caplog: pytest.LogCaptureFixture
):
    tensors = EsrganRecipe().tensors()
    scale = 1e6 if layer == "conv_hr" else 3e4
    for kind in ("weight", "bias"):
        tensors[f"{layer}.{kind}"] *= scale
    tensors["conv_last.weight"] /= scale
    half, full = on_cpu(tensors, torch.float16), on_cpu(tensors)
    with caplog.at_level(logging.WARNING):
        enlarged = half.enlarge(GREY)
    assert "the upscaler its gave numbers that torch.float16 can't hold" in caplog.text
    assert half.dtype == torch.float32
    assert torch.equal(enlarged, full.enlarge(GREY))
    caplog.clear()
    half.enlarge(GREY)
    assert caplog.text == ""


def test_what_is_finite_nowhere_is_an_error():
    tensors = EsrganRecipe().tensors()
    tensors["conv_hr.weight"] *= 1e30
    tensors["conv_up2.weight"] *= 1e30
    network = on_cpu(tensors)
    with pytest.raises(GenerationError, match="The upscaler its gave numbers that are not finite"):
        network.enlarge(GREY)


def test_tensors_of_no_network_are_refused():
    with pytest.raises(AddonError, match=r"its: body.0.weight has the shape \[\]"):
        on_cpu({"x": torch.zeros(1)})


@pytest.mark.parametrize(
    ("design", "right"),
    [
        (Design(Family.ESRGAN, 4, 64, 23, 32), 16_697_987),
        (Design(Family.COMPACT, 4, 64, 32), 1_213_296),
    ],
)
def test_the_networks_have_the_parameters_of_those_in_use(design: Design, right: int):
    assert sum(torch.Size(shape).numel() for shape in design.shapes().values()) == right
