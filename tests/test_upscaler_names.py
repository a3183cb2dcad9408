"""Names of the upscalers that every server has, in the spellings of other programs."""

from __future__ import annotations

import pytest

from lpw_sdxl.upscaler_names import (
    LatentUpscaler,
    PixelUpscaler,
    find_latent_upscaler,
    find_pixel_upscaler,
    is_built_in,
)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("Latent", LatentUpscaler.LATENT),
        ("Latent (antialiased)", LatentUpscaler.LATENT_ANTIALIASED),
        ("Latent (bicubic)", LatentUpscaler.LATENT_BICUBIC),
        ("Latent (bicubic antialiased)", LatentUpscaler.LATENT_BICUBIC_ANTIALIASED),
        ("Latent (nearest)", LatentUpscaler.LATENT_NEAREST),
        ("Latent (nearest-exact)", LatentUpscaler.LATENT_NEAREST_EXACT),
        ("latent_nearest_exact", LatentUpscaler.LATENT_NEAREST_EXACT),
        ("nearest", None),
        ("latent upscale", None),
    ],
)
def test_a1111s_latent_ones_are_known(name: str, right: LatentUpscaler | None):
    assert find_latent_upscaler(name) is right


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("None", PixelUpscaler.NONE),
        ("Nearest", PixelUpscaler.NEAREST),
        ("Lanczos", PixelUpscaler.LANCZOS),
        ("Latent", None),
        ("4x-UltraSharp", None),
    ],
)
def test_a1111s_plain_ones_are_known(name: str, right: PixelUpscaler | None):
    assert find_pixel_upscaler(name) is right


def test_no_other_name_is_built_in():
    assert all(map(is_built_in, [*PixelUpscaler, *LatentUpscaler]))
    assert not any(map(is_built_in, ["", "4x-UltraSharp", "R-ESRGAN 4x+", "x" * 1000]))
