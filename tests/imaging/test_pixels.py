from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from forge.pictures import noise
from lpw_sdxl.imaging.pixels import BAND_PIXELS, bands, read_pixels

SIZES = [(1, 1), (7, 3), (1, BAND_PIXELS + 1), (700, 800)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_images_pixels_are_read_as_they_are(size: tuple[int, int], channels: int) -> None:
    pixels = noise(*size, channels).astype(np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    np.testing.assert_array_equal(read_pixels(Image.fromarray(pixels)), pixels)


def test_a_large_image_has_several_bands() -> None:
    parts = [*bands(Image.new("L", (800, 700)))]
    assert len(parts) == 3
    assert [top for top, _ in parts] == [0, 327, 654]
    assert sum(band.height for _, band in parts) == 700
