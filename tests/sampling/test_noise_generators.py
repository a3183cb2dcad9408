from __future__ import annotations

import pytest
import torch

from lpw_sdxl.sampling.noise_generators import ImageNoise, NoiseGenerator, Variation, mix_noise
from lpw_sdxl.sampling_options import NoiseSource
from sampling_vectors import SHAPE

SIGMA = torch.tensor(1.0)


def draws_of(source: NoiseSource, seed: int, count: int) -> list[torch.Tensor]:
    generator = NoiseGenerator(source, seed)
    return [generator.draw(SHAPE) for _ in range(count)]


def test_cpu_noise_is_torchs() -> None:
    generator = torch.Generator("cpu").manual_seed(11)
    for drawn in draws_of(NoiseSource.CPU, 11, 3):
        assert torch.equal(drawn, torch.randn(SHAPE, generator=generator))


@pytest.mark.parametrize("source", NoiseSource)
def test_the_start_is_the_first_draw_and_steps_take_the_next_ones(source: NoiseSource) -> None:
    noise = ImageNoise(source, 11, SHAPE)
    drawn = [noise.start(), noise(SIGMA, SIGMA), noise(SIGMA, SIGMA)]
    assert torch.equal(torch.stack(drawn), torch.stack(draws_of(source, 11, 3)))


@pytest.mark.parametrize("source", NoiseSource)
def test_a_delta_begins_another_generator_after_the_start(source: NoiseSource) -> None:
    noise = ImageNoise(source, 11, SHAPE, eta_noise_seed_delta=31337)
    assert torch.equal(noise.start(), draws_of(source, 11, 1)[0])
    assert torch.equal(noise(SIGMA, SIGMA), draws_of(source, 11 + 31337, 1)[0])


@pytest.mark.parametrize("source", NoiseSource)
def test_a_seed_begins_again_after_64_bits(source: NoiseSource) -> None:
    assert torch.equal(draws_of(source, 2**64 + 3, 1)[0], draws_of(source, 3, 1)[0])
    assert torch.equal(draws_of(source, -1, 1)[0], draws_of(source, 2**64 - 1, 1)[0])


def test_mixing_keeps_the_length_of_unit_vectors() -> None:
    noise, other = draws_of(NoiseSource.CPU, 11, 2)
    unit, other_unit = (each / each.norm(dim=-2, keepdim=True) for each in (noise, other))
    mixed = mix_noise(unit, other_unit, 0.3)
    torch.testing.assert_close(mixed.norm(dim=-2), torch.ones(4, 8))


def test_mixing_with_itself_changes_nothing() -> None:
    [noise] = draws_of(NoiseSource.CPU, 11, 1)
    assert torch.equal(mix_noise(noise, noise, 0.3), noise)


@pytest.mark.parametrize(("strength", "index"), [(0.0, 0), (1.0, 1)])
def test_mixing_goes_from_one_noise_to_the_other(strength: float, index: int) -> None:
    pair = draws_of(NoiseSource.CPU, 11, 2)
    torch.testing.assert_close(mix_noise(*pair, strength), pair[index])


@pytest.mark.parametrize("source", NoiseSource)
def test_a_variation_changes_the_start_and_no_other_draw(source: NoiseSource) -> None:
    [own, following], [other] = draws_of(source, 11, 2), draws_of(source, 12, 1)
    noise = ImageNoise(source, 11, SHAPE, variation=Variation(12, 0.3))
    assert torch.equal(noise.start(), mix_noise(own, other, 0.3))
    assert torch.equal(noise(SIGMA, SIGMA), following)


def test_a_variation_without_strength_is_the_image() -> None:
    [own] = draws_of(NoiseSource.CPU, 11, 1)
    noise = ImageNoise(NoiseSource.CPU, 11, SHAPE, variation=Variation(12, 0.0))
    assert torch.equal(noise.start(), own)
