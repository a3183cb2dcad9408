"""Pictures and masks to paint from, as pixels and as files."""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt

from lpw_sdxl.schema import ImageSize
from tests.forge.pictures import GREY, TRUECOLOUR, write_png

Pixels = npt.NDArray[np.uint8]


def draw_picture(size: ImageSize, seed: int = 0) -> Pixels:
    """Draw colours that change over the picture, with some noise."""
    drawn = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : size.height, 0 : size.width]
    waves = [np.sin(rows / a + columns / b) for a, b in drawn.uniform(5, 30, (3, 2))]
    levels = np.stack(waves, axis=-1) * 90 + 128 + drawn.normal(0, 8, (*size, 3))
    return levels.clip(0, 255).astype(np.uint8)


def draw_mask(size: ImageSize) -> Pixels:
    """Draw a disc with a soft edge: its levels lie on both sides of half, and on it."""
    rows, columns = np.mgrid[0 : size.height, 0 : size.width]
    distance = np.hypot(rows - size.height * 0.45, columns - size.width * 0.6)
    return (128 + (size.height / 3 - distance) * 12).clip(0, 255).astype(np.uint8)


def to_file(pixels: Pixels) -> bytes:
    """Write a picture `[h, w, 3]` or a mask `[h, w]` as a PNG."""
    if pixels.ndim == 2:
        return write_png(pixels[..., None], GREY)
    return write_png(pixels, TRUECOLOUR)


def to_text(pixels: Pixels) -> str:
    """Write a picture or a mask as a request's JSON has it."""
    return base64.b64encode(to_file(pixels)).decode()


def furthest(one: Pixels, other: Pixels) -> int:
    """Find the largest difference of two pictures of one shape, in grey levels."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())
