"""Pictures that hold a text, written by the standards alone."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from lpw_sdxl.imaging.png import SIGNATURE

TEXT = "a cat\nNegative prompt: bad\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1234"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))


def png(*chunks: bytes, is_whole: bool = True) -> bytes:
    """A PNG of one grey pixel, with these chunks before its pixel."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    return SIGNATURE + header + b"".join(chunks) + (pixel if is_whole else b"")


def plain(text: str | bytes, keyword: str = "parameters") -> bytes:
    data = text if isinstance(text, bytes) else text.encode("latin-1")
    return chunk(b"tEXt", keyword.encode() + b"\0" + data)


def compressed(data: bytes, keyword: str = "parameters") -> bytes:
    return chunk(b"zTXt", keyword.encode() + b"\0\0" + data)


def international(data: bytes, *, is_compressed: bool = False) -> bytes:
    return chunk(b"iTXt", b"parameters\0" + bytes([is_compressed]) + b"\0en\0\0" + data)


def exif(comment: bytes, order: str = ">", *, tags: dict[int, bytes] | None = None) -> bytes:
    """An Exif block with a user's comment, and texts in its first directory."""
    values = tags or {}
    start = 8
    entries = len(values) + 1
    inner = start + 2 + 12 * entries + 4
    data_place = inner + 2 + 12 + 4
    first, data = b"", b""
    for tag, value in sorted(values.items()):
        first += struct.pack(order + "HHII", tag, 2, len(value), data_place + len(data))
        data += value
    first += struct.pack(order + "HHII", 0x8769, 4, 1, inner)
    second = struct.pack(order + "HHHII", 1, 0x9286, 7, len(comment), data_place + len(data))
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, start)
    directory = struct.pack(order + "H", entries) + first + bytes(4)
    return head + directory + second + bytes(4) + data + comment


def saved(form: str, block: bytes | None) -> bytes:
    """A JPEG or WebP by Pillow, with an Exif block as it is."""
    buffer = io.BytesIO()
    options = {} if block is None else {"exif": block}
    Image.new("RGB", (8, 8)).save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(block: bytes | None) -> bytes:
    return saved("JPEG", None if block is None else b"Exif\0\0" + block)


def webp(block: bytes | None) -> bytes:
    return saved("WEBP", block)
