"""Pixels and masks to another size, as `resize_mode` says.

The arithmetic is that of Diffusers' VaeImageProcessor, Lanczos like there: whole sizes are rounded
down, and what is cut or filled is centered.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from lpw_sdxl.imaging.pixels import Box, read_pixels
from lpw_sdxl.schema import LATENT_SCALE, ImageSize, ResizeMode
from lpw_sdxl.second_pass import Enlargement, Upscaler

Pixels = npt.NDArray[np.uint8]
Resampling = Image.Resampling

MAX_COVERING_PIXELS = 2**26  # computed, with all that is cut off; 256 MiB


def size_to_draw(picture: ImageSize) -> ImageSize:
    """Round a picture's size down to multiples of 8, as Diffusers does; a side may become 0."""
    return ImageSize(*(side - side % LATENT_SCALE for side in picture))


def enlarge_pixels(pixels: Pixels, enlargement: Enlargement, upscaler: Upscaler) -> Pixels:
    """Scale a first pass's pixels to the size of a second, and cut what is over around its middle.

    Args:
        pixels: `[h, w, 3]`.
        enlargement: the sizes.
        upscaler: one of pixels.

    Returns:
        `[height, width, 3]`.
    """
    covering, size = enlargement
    kind = Resampling.NEAREST if upscaler is Upscaler.NEAREST else Resampling.LANCZOS
    image = Image.fromarray(pixels).resize((covering.width, covering.height), kind)
    top, left = (covering.height - size.height) // 2, (covering.width - size.width) // 2
    return read_pixels(image, Box(left, top, left + size.width, top + size.height))


def resize(pixels: Pixels, size: ImageSize, mode: ResizeMode) -> Pixels:
    """Resize a picture or a mask; it is returned as it is where it has that size.

    Args:
        pixels: `[h, w, 3]` or `[h, w]`.
        size: to have afterwards, pixels.
        mode: `stretch` changes the ratio of the sides, `crop` cuts what is over, `fill` smears
            the outermost rows or columns over the rest.

    Returns:
        `[height, width, 3]` or `[height, width]`.
    """
    if pixels.shape[:2] == size:
        return pixels
    if mode is ResizeMode.CROP:
        return _crop(pixels, size)
    if mode is ResizeMode.FILL:
        return _fill(pixels, size)
    return _stretch(pixels, size)


def _crop(pixels: Pixels, size: ImageSize) -> Pixels:
    """Resize to cover the size, and cut what is over."""
    old = ImageSize(*pixels.shape[:2])
    is_wider = size.width * old.height > size.height * old.width
    covering = ImageSize(
        height=old.height * size.width // old.width if is_wider else size.height,
        width=size.width if is_wider else old.width * size.height // old.height,
    )
    top, left = covering.height // 2 - size.height // 2, covering.width // 2 - size.width // 2
    image = Image.fromarray(pixels)
    if covering.height * covering.width <= MAX_COVERING_PIXELS:
        whole = image.resize((covering.width, covering.height), Resampling.LANCZOS)
        return read_pixels(whole, Box(left, top, left + size.width, top + size.height))
    # Of a picture of one column the whole would be huge. The part alone may differ from it, since
    # Pillow chooses by size whether rows or columns are first, and cuts levels to 8 bits between.
    rows, columns = old.height / covering.height, old.width / covering.width
    right, bottom = (left + size.width) * columns, (top + size.height) * rows
    box = (left * columns, top * rows, min(right, old.width), min(bottom, old.height))
    return read_pixels(image.resize((size.width, size.height), Resampling.LANCZOS, box))


def _fill(pixels: Pixels, size: ImageSize) -> Pixels:
    """Resize to fit into the size, and fill the rest with what is at the edges."""
    old = ImageSize(*pixels.shape[:2])
    is_wider = size.width * old.height >= size.height * old.width
    fitting = ImageSize(
        height=size.height if is_wider else max(1, old.height * size.width // old.width),
        width=max(1, old.width * size.height // old.height) if is_wider else size.width,
    )
    top, left = size.height // 2 - fitting.height // 2, size.width // 2 - fitting.width // 2
    bottom, right = size.height - fitting.height - top, size.width - fitting.width - left
    fitted = _stretch(pixels, fitting)
    height, width = fitting
    if is_wider:
        before = _smear(fitted, ImageSize(height, left), (0, 0, 0, height))
        after = _smear(fitted, ImageSize(height, right), (width, 0, width, height))
    else:
        before = _smear(fitted, ImageSize(top, width), (0, 0, width, 0))
        after = _smear(fitted, ImageSize(bottom, width), (0, height, width, height))
    return np.concatenate([*before, fitted, *after], axis=1 if is_wider else 0)


def _smear(pixels: Pixels, size: ImageSize, edge: tuple[int, int, int, int]) -> list[Pixels]:
    """Make what bicubic interpolation gives at one edge (left, top, right, bottom), if any fits."""
    if not all(size):
        return []
    image = Image.fromarray(pixels)
    return [read_pixels(image.resize((size.width, size.height), Resampling.BICUBIC, edge))]


def _stretch(pixels: Pixels, size: ImageSize) -> Pixels:
    image = Image.fromarray(pixels)
    return read_pixels(image.resize((size.width, size.height), Resampling.LANCZOS))
