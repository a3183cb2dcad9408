"""The mask of a picture: which pixels are repainted, and how much of the new ones is seen.

A mask is `[height, width]`, uint8: 255 is repainted, 0 is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from lpw_sdxl.imaging.picture import Picture
from lpw_sdxl.imaging.pixels import read_pixels
from lpw_sdxl.imaging.resizing import resize
from lpw_sdxl.schema import ImageSize, ResizeMode

Mask = npt.NDArray[np.uint8]

OPAQUE = 255
BAND_ROWS = 64
HALF = 128  # the lowest level that Diffusers takes as repainted


@dataclass(frozen=True)
class MaskOptions:
    """The changes that a request makes to a mask.

    Attributes:
        is_inverted: black (or transparent) is repainted, instead of white (or opaque).
        blur: standard deviation of a Gaussian, in pixels of the picture.
    """

    is_inverted: bool = False
    blur: float = 0.0


def make_mask(picture: Picture, size: ImageSize, options: MaskOptions) -> Mask:
    """Make the mask for a picture to repaint.

    Args:
        picture: that was sent as the mask. White is repainted; if any of it is transparent, its
            opaque part is, whatever colour that has.
        size: of the picture to repaint; the mask is stretched to it.
        options: applied in their order.
    """
    levels = _luminance(picture.pixels) if picture.alpha is None else picture.alpha
    mask = resize(levels, size, ResizeMode.STRETCH)
    if options.is_inverted:
        mask = OPAQUE - mask
    if options.blur:
        # Three box filters in a row, as Diffusers blurs: within 3 % of a Gaussian, in a fixed time.
        mask = read_pixels(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(options.blur)))
    return mask


def binarize(mask: Mask) -> npt.NDArray[np.bool_]:
    """Return where a mask is repainted: at half and above, as in Diffusers."""
    return mask >= HALF


def _luminance(pixels: npt.NDArray[np.uint8]) -> Mask:
    """Weigh the channels as ITU-R BT.601 does; in bands of rows, for it may be large."""
    levels = np.empty(pixels.shape[:2], np.uint8)
    for top in range(0, len(pixels), BAND_ROWS):
        rows = slice(top, top + BAND_ROWS)
        levels[rows] = np.asarray(Image.fromarray(pixels[rows]).convert("L"))
    return levels
