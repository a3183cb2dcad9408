from __future__ import annotations

import pytest
import torch

from lpw_sdxl import sampling
from lpw_sdxl.sampling.philox import _philox, draw_normal
from sampling_vectors import SHAPE, read_tensors

NOISE = {name: noise for name, noise in read_tensors("sampling").items() if "noise" in name}


@pytest.mark.parametrize("name", NOISE)
def test_noise_is_that_of_nvidia_cards_bit_for_bit(name: str) -> None:
    _, seed, draw = name.split(".")
    assert torch.equal(sampling.noise("nv", int(seed), SHAPE, 3)[int(draw)], NOISE[name])


def test_words_are_those_of_the_published_test() -> None:
    """Random123's known answer for a counter and a key of zeros: 6627e8d5 e169c58d …"""
    first, second = _philox(0, 0, 1)
    assert [f"{int(word):08x}" for word in (first[0], second[0])] == ["6627e8d5", "e169c58d"]


def test_more_numbers_begin_with_the_fewer() -> None:
    assert torch.equal(draw_normal(7, 2, 1000)[:10], draw_normal(7, 2, 10))


def test_numbers_are_normal() -> None:
    numbers = draw_normal(1, 0, 200_000)
    assert numbers.mean().abs() < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert 4 < numbers.abs().max() < 7


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**32 + 1, 2**64 - 1])
def test_all_64_bits_of_a_seed_count(seed: int) -> None:
    others = {seed ^ 1, seed ^ 1 << 31, seed ^ 1 << 32, seed ^ 1 << 63}
    mine = draw_normal(seed, 0, 16)
    assert not any(torch.equal(mine, draw_normal(other, 0, 16)) for other in others)
