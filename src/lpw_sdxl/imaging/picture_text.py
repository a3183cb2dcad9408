"""The text of a picture in JSON, base64 or a data URL, to the bytes of its file."""

from __future__ import annotations

import binascii
import re

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging.containers.container import refused

# Decoded in slices: for a large picture one call would hold the interpreter's lock for 50 ms.
SLICE_CHARACTERS = 2**19
MAX_SCHEME_CHARACTERS = 256  # in which the head of a data URL ends
WHITE_SPACE = " \t\r\n\v\f"
QUARTET = 4

_DATA_URL = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
_OTHER_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_FROM_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")


def decode_picture_text(text: str, field: str, max_bytes: int) -> bytes:
    """Decode base64 or a data URL; CPU work of up to 100 ms, for a worker thread.

    White space is skipped, padding may be missing, and the alphabet may be the one for URLs. A data
    URL's media type is not read: the file's first bytes decide.

    Args:
        text: of the request.
        field: of the request, for refusals.
        max_bytes: of the file; no more is decoded.

    Raises:
        InvalidRequestError: if it is neither, such as the URL of a page, or decodes to more bytes.
    """
    start = _find_start(text, field)
    end = _find_end(text, start, field)
    is_for_urls = _is_for_urls(text, start, field)
    decoded, size, rest = [], 0, b""
    for place in range(start, end, SLICE_CHARACTERS):
        symbols = rest + _clean(text[place : min(place + SLICE_CHARACTERS, end)], field)
        if is_for_urls:
            symbols = symbols.translate(_FROM_URL_ALPHABET)
        whole = len(symbols) - len(symbols) % QUARTET
        decoded.append(_decode(symbols[:whole], field))
        rest = symbols[whole:]
        size += len(decoded[-1])
        if size > max_bytes:
            raise refused(field, f"has more than {max_bytes} bytes; send a smaller file")
    decoded.append(_decode(rest + b"=" * (-len(rest) % QUARTET), field))
    return b"".join(decoded)


def _find_start(text: str, field: str) -> int:
    """Find where the base64 begins, behind the head of a data URL."""
    head = text[:MAX_SCHEME_CHARACTERS]
    if data_url := _DATA_URL.match(head):
        if not data_url[1].strip().lower().endswith(";base64"):
            raise refused(field, "is a data URL without ;base64; encode the file with base64")
        return data_url.end()
    if _OTHER_URL.match(head):
        raise refused(
            field, "is a URL, and this server fetches none; send the file itself, as base64"
        )
    return 0


def _find_end(text: str, start: int, field: str) -> int:
    """Find where the base64 ends, before its padding."""
    end = text.find("=", start)
    if end < 0:
        return len(text)
    if text[end:].strip("=" + WHITE_SPACE):
        raise _not_base64(field)
    return end


def _is_for_urls(text: str, start: int, field: str) -> bool:
    """Find which alphabet is in use; one text has one of them."""
    is_for_urls = text.find("-", start) >= 0 or text.find("_", start) >= 0
    if is_for_urls and (text.find("+", start) >= 0 or text.find("/", start) >= 0):
        raise _not_base64(field)
    return is_for_urls


def _clean(part: str, field: str) -> bytes:
    try:
        return part.encode("ascii").translate(None, WHITE_SPACE.encode())
    except UnicodeEncodeError as error:
        raise _not_base64(field) from error


def _decode(symbols: bytes, field: str) -> bytes:
    try:
        return binascii.a2b_base64(symbols, strict_mode=True)
    except binascii.Error as error:
        raise _not_base64(field) from error


def _not_base64(field: str) -> InvalidRequestError:
    return refused(field, "is no base64 and no data URL of base64; encode the whole file so")
