"""A Brownian path that is torchsde's number for number, where torchsde can draw it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torchsde

from lpw_sdxl.sampling.brownian import BrownianNoise, BrownianPath
from lpw_sdxl.sampling.noise_generators import NoiseGenerator
from lpw_sdxl.sampling_options import NoiseSource
from sampling_vectors import SHAPE

LOW, HIGH = torch.tensor([0.0291671776, 14.6146430969])
QUERIES = [(9.1, 14.6), (5.5, 9.1), (7.3, 9.1), (0.5, 5.5), (0.0292, 0.5), (3.0, 3.000002)]


def path(seed: int = 3, source: NoiseSource = NoiseSource.CPU) -> BrownianPath:
    return BrownianPath(source, seed, SHAPE, LOW.item(), HIGH.item())


@pytest.mark.parametrize("seed", [3, 2**40 + 1])
def test_increments_are_those_of_torchsde(seed: int) -> None:
    tree = torchsde.BrownianTree(LOW, torch.zeros(SHAPE), HIGH, entropy=seed)
    mine = path(seed)
    for start, end in QUERIES:
        assert torch.equal(mine.increment(start, end), tree(start, end))


@pytest.mark.parametrize("source", NoiseSource)
def test_increments_don_t_depend_on_what_was_asked_before(source: NoiseSource) -> None:
    asked = path(source=source)
    for start, end in QUERIES:
        alone = path(source=source).increment(start, end)
        assert torch.equal(asked.increment(start, end), alone)


def test_increments_of_neighbours_add_up() -> None:
    whole = path().increment(1.0, 9.0)
    parts = path().increment(1.0, 4.2) + path().increment(4.2, 9.0)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)


def test_sources_draw_other_paths() -> None:
    assert not torch.equal(
        path(source=NoiseSource.CPU).increment(1.0, 9.0),
        path(source=NoiseSource.NV).increment(1.0, 9.0),
    )


def test_a_path_is_level_beyond_its_ends() -> None:
    assert torch.equal(path().increment(14.0, 99.0), path().increment(14.0, HIGH.item()))
    assert not path().increment(20.0, 99.0).any()


def test_noise_has_unit_variance_and_falls_with_sigma() -> None:
    shape = (4, 64, 64)
    sigmas = torch.tensor([14.0, 6.0, 2.0, 0.1, 0.0])
    noise = BrownianNoise(NoiseSource.CPU, 3, shape, sigmas)
    drawn = noise(sigmas[1], sigmas[2])
    assert abs(drawn.std().item() - 1) < 0.03
    rise = BrownianPath(NoiseSource.CPU, 3, shape, 0.1, 14.0).increment(2.0, 6.0)
    torch.testing.assert_close(drawn, -rise / math.sqrt(4.0), rtol=1e-5, atol=1e-6)


def test_little_is_kept_and_little_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk of 20 steps asks from above to below; each step needs one path through the tree."""
    draws = 0
    draw = NoiseGenerator.draw

    def counted(self: NoiseGenerator, shape: tuple[int, ...]) -> torch.Tensor:
        nonlocal draws
        draws += 1
        return draw(self, shape)

    monkeypatch.setattr(NoiseGenerator, "draw", counted)
    sigmas = torch.linspace(14.0, 0.03, 20)
    noise = BrownianNoise(NoiseSource.CPU, 3, SHAPE, sigmas)
    for sigma, sigma_next in pairwise(sigmas):
        noise(sigma, sigma_next)
    assert draws < 20 * 24
    assert len(noise._path._known) < 2 * 24
