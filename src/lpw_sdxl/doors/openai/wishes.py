"""Sizes, qualities and formats as OpenAI's clients name them, to ours."""

from __future__ import annotations

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
_SIZE = re.compile(r"\s*([0-9]{1,6})\s*[xX*]\s*([0-9]{1,6})\s*")


def read_size(text: str) -> ImageSize | None:
    """Read a size such as `1024x1536`, width first, rounded to multiples of 8; None for `auto`.

    Raises:
        InvalidRequestError: it is neither.
    """
    if text.strip().lower() == AUTO:
        return None
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidRequestError(
            "size is no size; one like 1024x1024, or auto, would be right", field="size"
        )
    return ImageSize(height=round_side(int(found[2])), width=round_side(int(found[1])))


def round_side(pixels: int) -> int:
    """Round a side to the nearest multiple of 8 that is not too small to be drawn."""
    return max(MIN_IMAGE_PIXELS, (pixels + LATENT_SCALE // 2) // LATENT_SCALE * LATENT_SCALE)


def read_format(text: str) -> ImageFormat:
    """Read the kind of file to answer with.

    Raises:
        InvalidRequestError: none of ours has this name.
    """
    found = _FORMATS.get(text.strip().lower())
    if found is None:
        raise InvalidRequestError(
            "output_format is not served; png, jpeg or webp would be right", field="output_format"
        )
    return found
