"""The chunks of a WebP.

Format: RFC 9649, section 2; the first bytes of a picture: RFC 6386, section 9.1 (lossy), and
RFC 9649, section 3.4 (lossless).
"""

from __future__ import annotations

import struct

from lpw_sdxl.imaging.containers.container import (
    MAX_PARTS,
    MAX_PROFILE_BYTES,
    Container,
    PictureKind,
    animated,
    cut_off,
    damaged,
)
from lpw_sdxl.schema import ImageSize

HEADER_BYTES = 12  # "RIFF", the size of all that follows, "WEBP"
LOSSY_MARK = b"\x9d\x01\x2a"
LOSSLESS_MARK = 0x2F
SIDE_BITS = 14  # of a side's length in a picture's own header


def read_webp(content: bytes, field: str) -> Container:
    """Take a WebP apart.

    Raises:
        InvalidRequestError: if it is cut off, damaged or animated.
    """
    end = 8 + int.from_bytes(content[4:8], "little")
    if end > len(content):
        raise cut_off(field, PictureKind.WEBP)
    content = content[:end]
    chunks, frames = _walk(content, field)
    if frames > 1:
        raise animated(field, PictureKind.WEBP)
    size = _read_size(chunks)
    if size is None or not all(size):
        raise damaged(field, PictureKind.WEBP)
    profile = chunks.get(b"ICCP", b"")
    return Container(
        PictureKind.WEBP,
        size,
        content,
        exif=bytes(chunks.get(b"EXIF", b"")),
        icc_profile=bytes(profile) if len(profile) <= MAX_PROFILE_BYTES else b"",
    )


def _walk(content: bytes, field: str) -> tuple[dict[bytes, memoryview], int]:
    """Find the data of each chunk by name, the first of each, and count the animation's frames."""
    chunks: dict[bytes, memoryview] = {}
    frames = 0
    place = HEADER_BYTES
    for _ in range(MAX_PARTS):
        if place >= len(content):
            return chunks, frames
        if place + 8 > len(content):
            raise cut_off(field, PictureKind.WEBP)
        name, length = struct.unpack_from("<4sI", content, place)
        end = place + 8 + length
        if end > len(content):
            raise cut_off(field, PictureKind.WEBP)
        chunks.setdefault(name, memoryview(content)[place + 8 : end])
        frames += name == b"ANMF"
        place = end + length % 2
    raise damaged(field, PictureKind.WEBP)


def _read_size(chunks: dict[bytes, memoryview]) -> ImageSize | None:
    """Read the size of the canvas, or of the only picture; None if neither is there."""
    if len(extended := chunks.get(b"VP8X", b"")) >= 10:
        width = int.from_bytes(extended[4:7], "little") + 1
        return ImageSize(int.from_bytes(extended[7:10], "little") + 1, width)
    if len(lossy := chunks.get(b"VP8 ", b"")) >= 10 and lossy[3:6] == LOSSY_MARK:
        width, height = struct.unpack_from("<HH", lossy, 6)
        return ImageSize(height % 2**SIDE_BITS, width % 2**SIDE_BITS)
    if len(lossless := chunks.get(b"VP8L", b"")) >= 5 and lossless[0] == LOSSLESS_MARK:
        bits = int.from_bytes(lossless[1:5], "little")
        return ImageSize((bits >> SIDE_BITS) % 2**SIDE_BITS + 1, bits % 2**SIDE_BITS + 1)
    return None
