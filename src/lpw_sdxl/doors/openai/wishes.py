"""Sizes, qualities and formats as OpenAI's clients name them, to ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schema import DEFAULT_STEPS, LATENT_SCALE, MIN_IMAGE_PIXELS, ImageFormat, ImageSize

AUTO = "auto"
QUALITY_STEPS: Mapping[str, int] = {
    "low": DEFAULT_STEPS // 2,
    "medium": DEFAULT_STEPS,
    "standard": DEFAULT_STEPS,
    "high": DEFAULT_STEPS * 3 // 2,
    "hd": DEFAULT_STEPS * 3 // 2,
    "xhigh": DEFAULT_STEPS * 2,
    "max": DEFAULT_STEPS * 2,
}
"""Denoising steps of each quality; `auto` and any other name are our own default."""

_FORMATS: Mapping[str, ImageFormat] = {
    **{str(one): one for one in ImageFormat},
    "jpg": ImageFormat.JPEG,
}
_SIZE = re.compile(r"\s*([0-9]{1,6})\s*[xX*\u00d7]\s*([0-9]{1,6})\s*")
_RATIO = re.compile(r"\s*([0-9]{1,4}(?:\.[0-9]{1,4})?)\s*[:/]\s*([0-9]{1,4}(?:\.[0-9]{1,4})?)\s*")
_LARGEST_RATIO = 8.0
_RATIO_STEP = 64  # of the sides that models are trained with
_SMALL = 512  # a model of fewer pixels is no full one, and has sides of any multiple


def read_size(text: str, native: ImageSize, field: str = "size") -> ImageSize | None:
    """Read a size such as `1024x1536`, width first, rounded to multiples of 8; None for `auto`.

    Args:
        text: a size, a ratio such as `16:9`, or `auto`.
        native: size of the model, whose pixels a ratio has.
        field: as the client named it, for refusals.

    Raises:
        InvalidRequestError: it is none of them.
    """
    if text.strip().lower() == AUTO:
        return None
    if found := _SIZE.fullmatch(text):
        return ImageSize(height=round_side(int(found[2])), width=round_side(int(found[1])))
    ratio = _read_ratio(text)
    if ratio is None:
        raise InvalidRequestError(
            f"{field} is no size; one like 1024x1024, a ratio like 16:9, or auto, would be right",
            field=field,
        )
    step = _RATIO_STEP if min(native) >= _SMALL else LATENT_SCALE
    area = native.width * native.height
    sides = (math.sqrt(area / ratio), math.sqrt(area * ratio))
    return ImageSize(*(max(MIN_IMAGE_PIXELS, round(side / step) * step) for side in sides))


def is_size(text: str) -> bool:
    """Return whether a text is a size such as `1024x1536`."""
    return _SIZE.fullmatch(text) is not None


def _read_ratio(text: str) -> float | None:
    """Read the ratio of width to height; None if it is none, or an extreme one."""
    found = _RATIO.fullmatch(text)
    if found is None or not float(found[1]) or not float(found[2]):
        return None
    ratio = float(found[1]) / float(found[2])
    return ratio if 1 / _LARGEST_RATIO <= ratio <= _LARGEST_RATIO else None


def round_side(pixels: int) -> int:
    """Round a side to the nearest multiple of 8 that is not too small to be drawn."""
    return max(MIN_IMAGE_PIXELS, (pixels + LATENT_SCALE // 2) // LATENT_SCALE * LATENT_SCALE)


def read_format(text: str) -> ImageFormat:
    """Read the kind of file to answer with.

    Raises:
        InvalidRequestError: none of ours has this name.
    """
    found = _FORMATS.get(text.strip().lower().removeprefix("image/"))
    if found is None:
        raise InvalidRequestError(
            "output_format is not served; png, jpeg or webp would be right", field="output_format"
        )
    return found
