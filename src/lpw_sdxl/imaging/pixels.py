"""Images of Pillow to arrays of numpy, in bands of rows.

numpy takes all of an image's pixels with the interpreter's lock held: 60 ms for the largest
picture, in which no client is answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

BAND_PIXELS = 2**18


class Box(NamedTuple):
    """A part of an image; `right` and `bottom` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


def read_pixels(image: Image.Image, box: Box | None = None) -> npt.NDArray[np.uint8]:
    """Copy an image of mode L, RGB or RGBA, or a part of it, to an array.

    Returns:
        `[h, w]`, or `[h, w, c]`.
    """
    box = box or Box(0, 0, image.width, image.height)
    channels = len(image.getbands())
    shape = (box.bottom - box.top, box.right - box.left)
    pixels = np.empty(shape if channels == 1 else (*shape, channels), np.uint8)
    for top, band in bands(image, box):
        pixels[top : top + band.height] = np.asarray(band)
    return pixels


def bands(image: Image.Image, box: Box | None = None) -> Iterator[tuple[int, Image.Image]]:
    """Yield rows of an image, or of a part, in bands, each with the place of its first row."""
    left, top, right, bottom = box or Box(0, 0, image.width, image.height)
    height = max(1, BAND_PIXELS // max(1, right - left))
    for first in range(top, bottom, height):
        yield first - top, image.crop((left, first, right, min(first + height, bottom)))
