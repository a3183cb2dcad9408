"""The texts of an Exif block: the comment that programs put their parameters into, and others.

Format: CIPA DC-008 (Exif 2.32), section 4.6.5; the block is a TIFF file (revision 6.0, section 2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from lpw_sdxl.imaging.exif import ENTRY_BYTES, PREFIX

MAX_TEXT_BYTES = 2**20
MAX_ENTRIES = 512  # of a directory that are read
EXIF_DIRECTORY, USER_COMMENT = 0x8769, 0x9286
# Image description, make, model, software.
TEXT_TAGS = frozenset({0x010E, 0x010F, 0x0110, 0x0131})
CODE_BYTES = 8  # at the beginning of a comment: the name of its code
_INLINE_BYTES = 4  # a shorter value stands in its entry
_BYTE, _ASCII, _UNDEFINED = 1, 2, 7
_JIS, _UNICODE = b"JIS\0\0\0\0\0", b"UNICODE\0"


class ExifTexts(NamedTuple):
    """The texts of an Exif block.

    Attributes:
        comment: the user's comment; None where there is none, or where its code is not read.
        tags: the texts of the first directory.
        has_jis: whether there is a comment in JIS, which is not read.
    """

    comment: str | None
    tags: tuple[str, ...]
    has_jis: bool = False


class _Entry(NamedTuple):
    tag: int
    value: bytes


def read_exif_texts(exif: bytes) -> ExifTexts:
    """Read the texts of an Exif block; one that can't be read has none."""
    block = exif.removeprefix(PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return ExifTexts(None, ())
    (start,) = struct.unpack_from(order + "I", block, 4)
    tags: list[str] = []
    comment: bytes | None = None
    for entry in _read_directory(block, start, order):
        if entry.tag in TEXT_TAGS:
            tags.append(entry.value.rstrip(b"\0").decode("utf-8", "replace"))
        elif entry.tag == EXIF_DIRECTORY and comment is None:
            (inner,) = struct.unpack(order + "I", entry.value)
            entries = _read_directory(block, inner, order)
            comment = next((one.value for one in entries if one.tag == USER_COMMENT), None)
        elif entry.tag == USER_COMMENT and comment is None:  # some programs put it there
            comment = entry.value
    if comment is None:
        return ExifTexts(None, tuple(tags))
    if comment.startswith(_JIS):
        return ExifTexts(None, tuple(tags), has_jis=True)
    return ExifTexts(_decode_comment(comment, order), tuple(tags))


def _read_directory(block: bytes, start: int, order: str) -> Iterator[_Entry]:
    """Yield the entries of a directory that hold texts, or where another directory is."""
    if start + 2 > len(block):
        return
    (count,) = struct.unpack_from(order + "H", block, start)
    for number in range(min(count, MAX_ENTRIES)):
        place = start + 2 + number * ENTRY_BYTES
        if place + ENTRY_BYTES > len(block):
            return
        tag, kind, length, offset = struct.unpack_from(order + "HHII", block, place)
        if tag == EXIF_DIRECTORY:
            yield _Entry(tag, block[place + 8 : place + ENTRY_BYTES])
        elif tag in TEXT_TAGS or tag == USER_COMMENT:
            if kind not in (_BYTE, _ASCII, _UNDEFINED) or length > MAX_TEXT_BYTES:
                continue
            offset = place + 8 if length <= _INLINE_BYTES else offset
            yield _Entry(tag, block[offset : offset + length])


def _decode_comment(comment: bytes, order: str) -> str:
    """Decode a comment by its code; one of no known code is UTF-8, as programs write it."""
    code, text = comment[:CODE_BYTES], comment[CODE_BYTES:]
    if code == _UNICODE:
        return _decode_unicode(text, order)
    if not code.strip(b"\0") or code.rstrip(b"\0 ") == b"ASCII":
        return text.rstrip(b"\0").decode("utf-8", "replace")
    return comment.rstrip(b"\0").decode("utf-8", "replace")


def _decode_unicode(text: bytes, order: str) -> str:
    """Decode UTF-16 in the byte order that the text itself shows.

    The format says the block's; A1111 and we write big-endian whatever that is, and others the
    block's. A byte order mark decides, then which half of the units is zero more often: most
    characters of a prompt are ASCII.
    """
    if text.startswith((b"\xfe\xff", b"\xff\xfe")):
        return text.decode("utf-16", "replace").rstrip("\0")
    zeros_first, zeros_last = text[0::2].count(0), text[1::2].count(0)
    if not zeros_first and not zeros_last and _is_utf_8(text):
        return text.decode()
    is_little = order == "<" if zeros_first == zeros_last else zeros_last > zeros_first
    return text.decode("utf-16-le" if is_little else "utf-16-be", "replace").rstrip("\0")


def _is_utf_8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
