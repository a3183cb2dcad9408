from __future__ import annotations

import torch

from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator, size_embedding
from lpw_sdxl.schema import ImageSize

SIZE = ImageSize(height=64, width=128)


def test_noise_has_an_eighth_of_the_image_height_first() -> None:
    assert draw_noise(SIZE, seeded_generator(0)).shape == (1, 4, 8, 16)


def test_a_seed_draws_the_same_noise_again_and_another_seed_other_noise() -> None:
    first = draw_noise(SIZE, seeded_generator(7))
    assert torch.equal(first, draw_noise(SIZE, seeded_generator(7)))
    assert not torch.equal(first, draw_noise(SIZE, seeded_generator(8)))


def test_the_largest_seed_draws() -> None:
    assert draw_noise(SIZE, seeded_generator(2**64 - 1)).isfinite().all()


def test_a_size_is_given_as_original_crop_and_target() -> None:
    assert size_embedding(SIZE).tolist() == [64, 128, 0, 0, 64, 128]
