"""A network works in the dtype that holds its numbers, and says where none does."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from lpw_sdxl.errors import AddonError, GenerationError
from lpw_sdxl.upscaling.design import Design, Family
from lpw_sdxl.upscaling.tiles import TiledPicture, upscale
from lpw_sdxl.upscaling.tiling import Tiling
from tests.forge.upscalers import CompactRecipe, EsrganRecipe

from .conftest import on_cpu

TILES = Tiling(8, 2)
GREY = np.full((8, 9, 3), 128, np.uint8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("recipe", [EsrganRecipe(), CompactRecipe()], ids=["esrgan", "compact"])
def test_half_precision_is_near_float32(recipe: EsrganRecipe | CompactRecipe, dtype: torch.dtype):
    half, full = on_cpu(recipe.tensors(), dtype), on_cpu(recipe.tensors())
    enlarged = half.enlarge(GREY)
    assert (half.dtype, enlarged.dtype) == (dtype, torch.float32)
    assert (enlarged - full.enlarge(GREY)).abs().max() < (0.004 if dtype is torch.float16 else 0.04)


def overflowing(layer: str) -> dict[str, torch.Tensor]:
    """An ESRGAN of whose numbers half precision can't hold those of one layer."""
    tensors = EsrganRecipe().tensors()
    scale = 1e6 if layer == "conv_hr" else 3e4
    for kind in ("weight", "bias"):
        tensors[f"{layer}.{kind}"] *= scale
    tensors["conv_last.weight"] /= scale
    return tensors


@pytest.mark.parametrize("layer", ["conv_hr", "conv_up2"], ids=["weights", "features"])
def test_what_half_precision_cannot_hold_is_computed_in_float32(
    layer: str, caplog: pytest.LogCaptureFixture
):
    tensors = overflowing(layer)
    half, full = on_cpu(tensors, torch.float16), on_cpu(tensors)
    assert half.enlarge(GREY) is None
    assert torch.equal(half.enlarge_exactly(GREY), full.enlarge(GREY))
    right = upscale(full, GREY, TILES)
    for _ in range(2):  # the next picture begins in half precision again
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert np.array_equal(upscale(half, GREY, TILES), right)
        assert caplog.text.count("the upscaler its gave numbers that torch.float16 can't hold") == 1
    assert half.dtype == torch.float16
    weights = sum(tensor.numel() for tensor in tensors.values())
    assert half.weight_bytes == weights * (2 + 4)


def test_one_bright_tile_leaves_those_before_it_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
):
    half = on_cpu(EsrganRecipe().tensors(), torch.float16)
    enlarge, calls = half.enlarge, []
    monkeypatch.setattr(half, "enlarge", lambda tile: calls.append(0) or _second(enlarge, tile))

    def _second(work: Any, tile: Any) -> Any:
        return None if len(calls) == 2 else work(tile)

    picture = TiledPicture(half, np.tile(GREY, (2, 2, 1)), TILES)
    while picture.done < picture.tiles:
        picture.advance()
    assert picture.tiles > 3
    assert len(calls) == 2


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
