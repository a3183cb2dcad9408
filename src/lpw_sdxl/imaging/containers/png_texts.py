"""The texts of a PNG, by keyword, without its pixels.

Format: W3C, Portable Network Graphics, third edition, section 11.3.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

from lpw_sdxl.imaging.containers.container import MAX_PARTS
from lpw_sdxl.imaging.png import SIGNATURE

MAX_TEXT_BYTES = 2**20  # of one text, inflated
LONGEST_KEYWORD = 79  # characters of Latin-1
_HEAD_BYTES = 8  # a chunk's length and name


class PngTexts(NamedTuple):
    """The texts that were looked for, and the Exif block.

    Attributes:
        by_keyword: the first text of each keyword.
        exif: nothing where there is none.
    """

    by_keyword: dict[str, str]
    exif: bytes


def read_png_texts(content: bytes, keywords: Collection[str]) -> PngTexts:
    """Read the texts of some keywords, up to the first chunk that breaks the format.

    A text that inflates to more than 1 MiB is left out, and so is one that is damaged: at most as
    many texts are inflated as there are keywords.

    Args:
        content: of the file, with a PNG's signature.
        keywords: that are looked for.
    """
    found: dict[str, str] = {}
    tried: set[str] = set()
    exif = b""
    for name, data in _walk(content):
        if name == b"eXIf":
            exif = exif or bytes(data)
            continue
        keyword, end, _ = bytes(data[: LONGEST_KEYWORD + 1]).partition(b"\0")
        word = keyword.decode("latin-1")
        if not end or word not in keywords or word in tried:
            continue
        tried.add(word)
        text = _READERS[name](data[len(keyword) + 1 :])
        if text is not None:
            found[word] = text
    return PngTexts(found, exif)


def _walk(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield name and data of the chunks that hold texts or Exif."""
    place = len(SIGNATURE)
    for _ in range(MAX_PARTS):
        if place + _HEAD_BYTES > len(content):
            return
        length, name = struct.unpack_from(">I4s", content, place)
        end = place + _HEAD_BYTES + length
        if end > len(content) or name == b"IEND":
            return
        if name in _READERS or name == b"eXIf":
            yield name, memoryview(content)[place + _HEAD_BYTES : end]
        place = end + 4  # the sum


def _read_plain(data: memoryview) -> str | None:
    return None if len(data) > MAX_TEXT_BYTES else _decode(bytes(data))


def _read_compressed(data: memoryview) -> str | None:
    """Read what follows a zTXt's keyword: the method, which is 0, and the text."""
    inflated = _inflate(data[1:]) if data and not data[0] else None
    return None if inflated is None else _decode(inflated)


def _read_international(data: memoryview) -> str | None:
    """Read what follows an iTXt's keyword: two flags, two names that end with a NUL, the text."""
    if len(data) > MAX_TEXT_BYTES:
        return None
    _, _, rest = bytes(data[2:]).partition(b"\0")
    _, end, rest = rest.partition(b"\0")
    if not end:
        return None
    text = _inflate(memoryview(rest)) if data[0] else rest
    return None if text is None else text.decode("utf-8", "replace")


def _inflate(data: memoryview) -> bytes | None:
    try:
        inflated = zlib.decompressobj().decompress(data, MAX_TEXT_BYTES + 1)
    except zlib.error:
        return None
    return inflated if len(inflated) <= MAX_TEXT_BYTES else None


def _decode(text: bytes) -> str:
    return text.decode("latin-1")


_READERS = {b"tEXt": _read_plain, b"zTXt": _read_compressed, b"iTXt": _read_international}
