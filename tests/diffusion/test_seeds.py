"""Seeds of over 32 bits: which of them start from the same noise, as the field says."""

from __future__ import annotations

import pytest
import torch

from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.schema import GenerationRequest, ImageSize

SIZE = ImageSize(64, 64)


@pytest.mark.parametrize("seed", [2**32 + 5, 2**33 + 5, 2**64 - 2**32 + 5])
def test_seeds_that_differ_by_a_multiple_of_2_32_draw_the_same_noise(seed: int) -> None:
    usual = draw_noise(SIZE, seeded_generator(5))
    assert torch.equal(draw_noise(SIZE, seeded_generator(seed)), usual)
    # Diffusers draws with the generator that a user makes like this.
    assert torch.equal(
        torch.randn(1, 4, 8, 8, generator=torch.Generator("cpu").manual_seed(seed)), usual
    )
    assert not torch.equal(draw_noise(SIZE, seeded_generator(6)), usual)
    assert not torch.equal(draw_noise(SIZE, seeded_generator(2**31 + 5)), usual)


def test_the_field_says_so() -> None:
    description = GenerationRequest.model_fields["seed"].description or ""
    assert "a multiple of 2^32 start from the same noise" in description
