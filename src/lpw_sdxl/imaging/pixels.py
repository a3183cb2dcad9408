"""Images of Pillow to arrays of numpy, in bands of rows.

numpy takes all of an image's pixels with the interpreter's lock held: 60 ms for the largest
picture, in which no client is answered.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

BAND_PIXELS = 2**18


def read_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Copy an image of mode L, RGB or RGBA to an array, `[h, w]` or `[h, w, c]`."""
    channels = len(image.getbands())
    shape = (image.height, image.width) if channels == 1 else (image.height, image.width, channels)
    pixels = np.empty(shape, np.uint8)
    for top, band in bands(image):
        pixels[top : top + band.height] = np.asarray(band)
    return pixels


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the image's rows in bands of the same mode, each with the place of its first row."""
    height = max(1, BAND_PIXELS // max(1, image.width))
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        yield top, image.crop((0, top, image.width, bottom))
