"""Kinds of files, by their first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from lpw_sdxl.imaging.containers.container import Container
from lpw_sdxl.imaging.containers.jpeg import read_jpeg
from lpw_sdxl.imaging.containers.png import read_png
from lpw_sdxl.imaging.containers.webp import read_webp
from lpw_sdxl.picture_text import refused

MAX_LEADING_TEXT = 512  # bytes in which the first element of an SVG or HTML file is looked for

_READERS: Mapping[re.Pattern[bytes], Callable[[bytes, str], Container]] = {
    re.compile(rb"\x89PNG\r\n\x1a\n"): read_png,
    re.compile(rb"\xff\xd8\xff"): read_jpeg,
    re.compile(rb"RIFF....WEBP", re.DOTALL): read_webp,
}
_TEXT = rb"(?:\xef\xbb\xbf)?\s*"
_REFUSED: Mapping[re.Pattern[bytes], str] = {
    re.compile(rb"GIF8[79]a"): "a GIF",
    re.compile(rb"....ftyp(?:avif|avis)", re.DOTALL): "an AVIF",
    re.compile(rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL): "an HEIC",
    re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "): "a JPEG XL",
    re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"): "a JPEG 2000",
    re.compile(rb"II[*+]\0|MM\0[*+]"): "a TIFF",
    re.compile(rb"8BPS"): "a Photoshop file",
    re.compile(rb"BM....\0\0\0\0", re.DOTALL): "a BMP",
    re.compile(rb"\0\0[\1\2]\0"): "an icon",
    re.compile(rb"%PDF"): "a PDF",
    re.compile(_TEXT + rb"<(?:svg|[?!](?!doctype html).*<svg)", re.DOTALL | re.I): "an SVG",
    re.compile(_TEXT + rb"<(?:!doctype html|html|head|body)", re.I): "an HTML page",
}


def read_container(content: bytes, field: str) -> Container:
    """Take a picture's file apart, by the kind that its first bytes have.

    Args:
        content: of the file.
        field: of the request, for refusals.

    Raises:
        InvalidRequestError: if it is no PNG, JPEG or WebP, or is cut off, damaged or animated.
    """
    for pattern, read in _READERS.items():
        if pattern.match(content):
            return read(content, field)
    if not content:
        raise refused(field, "is empty; send a PNG, JPEG or WebP")
    start = content[:MAX_LEADING_TEXT]
    found = next((name for pattern, name in _REFUSED.items() if pattern.match(start)), None)
    is_what = f"is {found}" if found else "has the first bytes of no known picture"
    raise refused(field, f"{is_what}; send a PNG, JPEG or WebP")
