"""The chunks of a PNG.

Format: W3C, Portable Network Graphics, third edition, sections 5 and 11.
"""

from __future__ import annotations

import struct
import zlib

from isal import isal_zlib

from lpw_sdxl.imaging.containers.container import (
    MAX_PARTS,
    MAX_PROFILE_BYTES,
    Container,
    PictureKind,
    animated,
    cut_off,
    damaged,
)
from lpw_sdxl.imaging.png import SIGNATURE
from lpw_sdxl.schema import ImageSize

HEADER_BYTES = 13
BIT_DEPTHS = (1, 2, 4, 8, 16)
# All else is left out: texts may be long, and none of it changes a pixel.
DECIDE_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def read_png(content: bytes, field: str) -> Container:
    """Take a PNG apart.

    Raises:
        InvalidRequestError: if it is cut off, damaged or animated.
    """
    kept, others = _walk(content, field)
    header = kept[0][len(SIGNATURE) :]
    length, name, width, height, bit_depth = struct.unpack_from(">I4sIIB", header)
    is_whole = (length, name) == (HEADER_BYTES, b"IHDR") and bit_depth in BIT_DEPTHS
    if not (is_whole and width and height):
        raise damaged(field, PictureKind.PNG)
    if int.from_bytes(others.get(b"acTL", b"")[:4]) > 1:
        raise animated(field, PictureKind.PNG)
    return Container(
        PictureKind.PNG,
        ImageSize(height, width),
        b"".join(kept),
        bit_depth=bit_depth,
        exif=others.get(b"eXIf", b""),
        icc_profile=_inflate_profile(others.get(b"iCCP", b"")),
    )


def _walk(content: bytes, field: str) -> tuple[list[bytes], dict[bytes, bytes]]:
    """Split the chunks: those that decide the pixels, whole; the data of others by name.

    The first one has the signature in front.
    """
    kept: list[bytes] = []
    others: dict[bytes, bytes] = {}
    start, place = 0, len(SIGNATURE)
    for _ in range(MAX_PARTS):
        if place + 8 > len(content):
            raise cut_off(field, PictureKind.PNG)
        length, name = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            raise cut_off(field, PictureKind.PNG)
        if not kept and (name, length) != (b"IHDR", HEADER_BYTES):
            raise damaged(field, PictureKind.PNG)
        if name in DECIDE_PIXELS:
            _check_sum(memoryview(content)[place + 4 : end], field)
            kept.append(content[start:end])
        else:
            others.setdefault(name, content[place + 8 : end - 4])
        if name == b"IEND":
            return kept, others
        start = place = end
    raise damaged(field, PictureKind.PNG)


def _check_sum(chunk: memoryview, field: str) -> None:
    """Compare name and data with the sum behind them; the decoder would not do so for pixels."""
    if isal_zlib.crc32(chunk[:-4]) != int.from_bytes(chunk[-4:]):
        raise damaged(field, PictureKind.PNG)


def _inflate_profile(chunk: bytes) -> bytes:
    """Inflate the profile of an iCCP chunk: a name, a NUL, the method 0, the profile."""
    _, _, rest = chunk.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(rest[1:], MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return b""
    return profile if len(profile) <= MAX_PROFILE_BYTES else b""
