"""A mask as A1111 reads it, before it becomes a field of our request."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from lpw_sdxl.doors.a1111.pictures import MASK
from lpw_sdxl.imaging.mask import OPAQUE, MaskOptions, make_mask
from lpw_sdxl.imaging.picture import PictureLimits, read_picture

ROUNDED_ABOVE = 128  # of a mask's opacity; above it a part is painted over


def prepare_mask(
    content: bytes, *, is_rounded: bool, is_inverted: bool, limits: PictureLimits
) -> bytes | None:
    """Round a mask's transparency; CPU work of up to a second, for a worker thread.

    Args:
        content: of the mask's file.
        is_rounded: whether a part is painted over wholly or not at all, by its opacity. A mask
            without transparency stays as it is.
        is_inverted: whether the rest is painted over.
        limits: of pictures.

    Returns:
        The mask's file, or None where nothing is painted over.

    Raises:
        InvalidRequestError: it can't be read.
    """
    picture = read_picture(content, MASK, limits)
    if not make_mask(picture, picture.size, MaskOptions(is_inverted)).any():
        return None
    if picture.alpha is None or not is_rounded:
        return content
    levels = np.where(picture.alpha > ROUNDED_ABOVE, OPAQUE, 0).astype(np.uint8)
    if not np.any(OPAQUE - levels if is_inverted else levels):
        return None
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
