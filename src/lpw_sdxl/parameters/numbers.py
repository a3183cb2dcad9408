"""Numbers as texts have them; a text that is none is None."""

from __future__ import annotations

import math
import re

from lpw_sdxl.schema import ImageSize

_WHOLE = re.compile(r"[+-]?\d{1,20}(?:\.0{1,6})?")
_NUMBER = re.compile(
    r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})(?:e[+-]?\d{1,3})?", re.IGNORECASE
)
_SIZE = re.compile(r"(\d{1,6}) ?[x\u00d7] ?(\d{1,6})", re.IGNORECASE)
_INTERVAL = re.compile(rf"({_NUMBER.pattern})-({_NUMBER.pattern})", re.IGNORECASE)


def read_whole(text: str) -> int | None:
    """Read a whole number, such as `20` or `20.0`."""
    return int(text.partition(".")[0]) if _WHOLE.fullmatch(text) else None


def read_number(text: str) -> float | None:
    """Read a finite number."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def read_size(text: str) -> ImageSize | None:
    """Read a size, width first, such as `832x1216`."""
    found = _SIZE.fullmatch(text)
    return ImageSize(int(found[2]), int(found[1])) if found else None


def read_interval(text: str) -> list[float] | None:
    """Read two numbers with a hyphen between them."""
    found = _INTERVAL.fullmatch(text)
    return [float(found[1]), float(found[2])] if found else None
