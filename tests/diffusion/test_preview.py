from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lpw_sdxl.diffusion import preview
from lpw_sdxl.diffusion.decoder import Decoder
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.preview import Preview
from lpw_sdxl.schema import ImageSize

NEVER = 2**40


def smooth(size: ImageSize, seed: int) -> torch.Tensor:
    """Latents that change slowly from place to place, as a picture's do."""
    coarse = draw_noise(ImageSize(32, 32), seeded_generator(seed))
    shape = (size.height // 8, size.width // 8)
    return torch.nn.functional.interpolate(coarse, shape, mode="bilinear")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_preview_looks_like_the_image(vae: Any, seed: int) -> None:
    decoder = Decoder(vae, NEVER)
    latents = smooth(ImageSize(128, 192), seed)
    drawn = Preview(decoder).take(latents).draw()
    pixels = torch.from_numpy(decoder.decode(latents)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.avg_pool2d(pixels, 8)[0].permute(1, 2, 0).numpy()
    assert drawn.shape == small.shape
    for channel in range(3):
        pair = drawn[..., channel].ravel(), small[..., channel].ravel()
        # The demo's VAE is random; plain noise to fit it on gives 0.15 to 0.8 here.
        assert np.corrcoef(*pair)[0, 1] > 0.65


def test_a_preview_is_an_eighth_of_the_image(vae: Any) -> None:
    drawn = Preview(Decoder(vae, NEVER)).take(smooth(ImageSize(72, 104), 0)).draw()
    assert drawn.shape == (9, 13, 3)
    assert drawn.dtype == np.uint8


def test_latents_that_diverge_are_drawn_too(vae: Any) -> None:
    latents = smooth(ImageSize(64, 64), 0)
    latents[0, 0, 0, 0], latents[0, 0, 1, 1] = float("nan"), float("inf")
    assert Preview(Decoder(vae, NEVER)).take(latents).draw().shape == (8, 8, 3)


def test_the_map_is_the_same_each_time(vae: Any) -> None:
    latents = smooth(ImageSize(64, 64), 0)
    first, again = (Preview(Decoder(vae, NEVER)).take(latents).draw() for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_half_precision_vae_has_previews(vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "FITTED_SIZE", ImageSize(64, 64))  # a CPU is slow in float16
    latents = smooth(ImageSize(64, 64), 0)
    exact = Preview(Decoder(vae, NEVER)).take(latents).draw()
    half = Preview(Decoder(vae.half(), NEVER)).take(latents).draw()
    assert np.abs(exact.astype(int) - half).mean() < 3


def test_a_preview_is_of_the_latents_as_they_were(vae: Any) -> None:
    preview = Preview(Decoder(vae, NEVER))
    latents = smooth(ImageSize(64, 64), 0)
    undrawn = preview.take(latents)
    before = preview.take(latents).draw()
    latents.zero_()
    np.testing.assert_array_equal(undrawn.draw(), before)
