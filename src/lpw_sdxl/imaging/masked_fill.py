"""The masked part of a picture, filled with a blurred spread of its surroundings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from lpw_sdxl.imaging.mask import Mask
from lpw_sdxl.imaging.pixels import read_pixels

Pixels = npt.NDArray[np.uint8]

OPAQUE = 255
BAND_ROWS = 64
GREY = 127  # of a picture without surroundings; the middle of what the VAE encodes


class _Layer(NamedTuple):
    radius: int  # of the blur, pixels
    times: int  # that it is laid over those before it: how far it covers them where it is thin


# From far to near, as in A1111 (modules/masking.py); the last are the known pixels themselves.
_LAYERS = (_Layer(256, 1), _Layer(64, 1), _Layer(16, 2), _Layer(4, 4), _Layer(2, 2), _Layer(0, 1))


def fill_masked(pixels: Pixels, mask: Mask) -> Pixels:
    """Fill the masked part of a picture with the colours around it; 0.5 s for 1024 x 1024.

    The pixels that are kept are blurred, without those that are not, by ever smaller radii, and
    each layer is laid over those before it: near the edge of the mask are the colours next to it,
    deep inside are the mean ones of a larger circle. So does A1111. Where no layer reaches is the
    mean of what is kept; A1111 leaves it black.

    Args:
        pixels: `[height, width, 3]`, at the size that is painted.
        mask: `[height, width]`; what it keeps (0) comes out as it is.

    Returns:
        `[height, width, 3]`
    """
    kept = Image.fromarray(np.dstack([pixels, OPAQUE - mask])).convert("RGBa")
    filled = Image.new("RGBA", kept.size)
    for layer in _LAYERS:
        blurred = kept.filter(ImageFilter.GaussianBlur(layer.radius)).convert("RGBA")
        for _ in range(layer.times):
            _lay_over(filled, blurred)
    result = read_pixels(filled)
    result[result[..., 3] == 0, :3] = _mean(pixels, OPAQUE - mask)
    return np.ascontiguousarray(result[..., :3])


def _lay_over(below: Image.Image, above: Image.Image) -> None:
    """Lay one image over another in bands of rows: Pillow keeps the interpreter's lock for each."""
    for top in range(0, below.height, BAND_ROWS):
        band = (0, top, below.width, min(top + BAND_ROWS, below.height))
        below.alpha_composite(above, (0, top), band)


def _mean(pixels: Pixels, shares: Mask) -> Pixels:
    if not shares.any():
        return np.full(3, GREY, np.uint8)
    return np.average(pixels.reshape(-1, 3), axis=0, weights=shares.reshape(-1)).astype(np.uint8)
