"""The part of a picture that is repainted: cut out before, and pasted back afterwards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from lpw_sdxl.imaging.mask import Mask
from lpw_sdxl.imaging.resizing import resize
from lpw_sdxl.schema import ImageSize, ResizeMode

Pixels = npt.NDArray[np.uint8]

BAND_ROWS = 64


class _Range(NamedTuple):
    """Rows or columns, from `start` to before `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Region(NamedTuple):
    """A rectangle of a picture, in pixels; `bottom` and `right` are the first ones outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> ImageSize:
        """Height and width, pixels."""
        return ImageSize(self.bottom - self.top, self.right - self.left)

    def cut(self, pixels: Pixels) -> Pixels:
        """Cut the region out of a picture or a mask; a view, `[height, width, ...]`."""
        return pixels[self.top : self.bottom, self.left : self.right]


def find_region(mask: Mask, size: ImageSize, padding: int) -> Region | None:
    """Find the region to paint at another size: around all of a mask that is not black.

    It gets the padding on each side, and then rows or columns until its sides have the ratio of the
    size, as far as the picture reaches: as in Diffusers and A1111, to the pixel.

    Args:
        mask: blurred, so that its soft edge is in the region too.
        size: at which the region is painted.
        padding: pixels of the picture.

    Returns:
        The region, or None where all of the mask is black.
    """
    height, width = mask.shape
    masked_rows, masked_columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not masked_rows.size:
        return None
    rows = _pad(masked_rows, padding, height)
    columns = _pad(masked_columns, padding, width)
    if columns.length * size.height > rows.length * size.width:
        rows = _grow(rows, columns.length * size.height / size.width, height)
    else:
        columns = _grow(columns, rows.length * size.width / size.height, width)
    return Region(rows.start, columns.start, rows.stop, columns.stop)


def paste_back(original: Pixels, painted: Pixels, mask: Mask, region: Region | None) -> Pixels:
    """Put what was painted into the original, as far as the mask says.

    Where the mask is black the result is the original, bit for bit; where it is white, what was
    painted.

    Args:
        original: `[height, width, 3]`.
        painted: of the region, at any size of about its ratio: it is resized to the region. Without
            a region, of the original's size.
        mask: of the original's size.
        region: that was painted; None is all.

    Returns:
        `[height, width, 3]`
    """
    region = region or Region(0, 0, *original.shape[:2])
    fitted = resize(painted, region.size, ResizeMode.CROP)
    result = original.copy()
    below, shares = region.cut(result), region.cut(mask)
    # In bands of rows: numpy takes an image's pixels with the interpreter's lock held.
    for top in range(0, region.size.height, BAND_ROWS):
        rows = slice(top, top + BAND_ROWS)
        blended = Image.composite(
            Image.fromarray(fitted[rows]),
            Image.fromarray(np.ascontiguousarray(below[rows])),
            Image.fromarray(np.ascontiguousarray(shares[rows])),
        )
        below[rows] = np.asarray(blended)
    return result


def _pad(masked: npt.NDArray[np.intp], padding: int, limit: int) -> _Range:
    """Make the range of all that is masked, with padding, within 0 to the limit."""
    return _Range(max(0, int(masked[0]) - padding), min(int(masked[-1]) + 1 + padding, limit))


def _grow(old: _Range, length: float, limit: int) -> _Range:
    """Make a range longer on both sides, moved to stay within 0 to the limit."""
    added = int(length - old.length)
    start = old.start - added // 2
    stop = start + old.length + added
    start -= max(0, stop - limit)
    stop = min(stop, limit)
    if start < 0:
        start, stop = 0, min(stop - start, limit)
    return _Range(start, stop)
