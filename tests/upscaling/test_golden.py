"""Our networks give what spandrel's give, by tests/golden/upscalers.safetensors."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from conftest import ROOT
from lpw_sdxl.upscaling.tiles import pad
from tests.forge.upscalers import CASES, picture

from .conftest import Network

GOLDEN = load_file(ROOT / "tests" / "golden" / "upscalers.safetensors")
HEIGHT, WIDTH = 6, 5


def test_every_case_has_a_result():
    assert set(GOLDEN) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_network_agrees_with_spandrels(name: str, network: Network):
    ours = network(CASES[name])
    pixels = (picture(HEIGHT, WIDTH) * 255).round().byte().permute(1, 2, 0).numpy()
    enlarged = ours.enlarge(pad(pixels, ours.design.unshuffle))
    scale = int(name.partition("_x")[2][0])
    assert ours.design.scale == scale
    theirs = GOLDEN[name]
    assert theirs.shape == (3, scale * HEIGHT, scale * WIDTH)
    assert theirs.std() > 0.1
    enlarged = enlarged[:, : scale * HEIGHT, : scale * WIDTH]
    torch.testing.assert_close(enlarged, theirs, rtol=1e-5, atol=2e-5)


def test_agreement_would_notice_a_weight(network: Network):
    ours = network(CASES["basic_x4"])
    with torch.no_grad():
        ours._module.get_parameter("body.1.rdb3.conv2.weight")[0, 0, 0, 0] += 0.1
    pixels = (picture(HEIGHT, WIDTH) * 255).round().byte().permute(1, 2, 0).numpy()
    assert (ours.enlarge(pixels) - GOLDEN["basic_x4"]).abs().max() > 1e-4
