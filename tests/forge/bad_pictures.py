"""Files that are read as no picture, and why: other kinds, animations, damage, bombs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping

from PIL import Image

from lpw_sdxl.imaging.containers.jpeg import MAX_SCANS
from tests.forge.pictures import KINDS, TRUECOLOUR, smooth, write_chunk

SMALL = {kind: forge(40, 56).content for kind, forge in KINDS.items()}
COLOUR = SMALL["png-colour"]
JPEG = SMALL["jpeg"]
WEBP = SMALL["webp"]


def frames(kind: str) -> bytes:
    """Three frames that differ."""
    buffer = io.BytesIO()
    images = [Image.new("RGB", (40, 40), (level, 0, 0)) for level in (0, 90, 255)]
    images[0].save(buffer, kind, save_all=True, append_images=images[1:], duration=50)
    return buffer.getvalue()


def saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(smooth(40, 56)).save(buffer, kind)
    return buffer.getvalue()


def png_of(height: int, width: int) -> bytes:
    """A PNG that states a size and holds 48 MB of zeros for it, in 50 KB."""
    header = struct.pack(">IIBBBBB", width, height, 8, TRUECOLOUR, 0, 0, 0)
    rows = zlib.compress(bytes(48 * 2**20), 9)
    parts = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return COLOUR[:8] + b"".join(write_chunk(*part) for part in parts)


def jpeg_of(height: int, width: int) -> bytes:
    start = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:start] + struct.pack(">HH", height, width) + JPEG[start + 4 :]


def webp_of(height: int, width: int) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + WEBP[12:]
    return b"RIFF" + struct.pack("<I", len(parts)) + parts


def many_scans() -> bytes:
    content = SMALL["jpeg-progressive"]
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * MAX_SCANS + content[-2:]


REFUSED: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"a lighthouse", "has the first bytes of no known picture"),
    "gif": (saved("GIF"), "is a GIF; send a PNG, JPEG or WebP"),
    "animated gif": (frames("GIF"), "is a GIF"),
    "animated png": (frames("PNG"), "is an animated PNG; send one frame"),
    "animated webp": (frames("WEBP"), "is an animated WebP; send one frame"),
    "avif": (saved("AVIF"), "is an AVIF"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is an HEIC"),
    "heif of apple": (b"\0\0\0\x24ftypmif1\0\0\0\0mif1MiHE", "is an HEIC"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG"),
    "svg with a head": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a -->\n<svg/>', "is an SVG"),
    "html": (b"\n<!DOCTYPE html><html><body>Log in<svg/></body></html>", "is an HTML page"),
    "bmp": (saved("BMP"), "is a BMP"),
    "tiff": (saved("TIFF"), "is a TIFF"),
    "jpeg 2000": (saved("JPEG2000"), "is a JPEG 2000"),
    "jpeg xl": (b"\xff\x0a" + bytes(40), "is a JPEG XL"),
    "pdf": (saved("PDF"), "is a PDF"),
    "photoshop": (b"8BPS\0\1" + bytes(40), "is a Photoshop file"),
    "png without pixels": (COLOUR[:33] + COLOUR[-12:], "damaged or unusual PNG"),
    "png with a wrong sum": (COLOUR[:-14] + b"!" + COLOUR[-13:], "damaged or unusual PNG"),
    "png with two headers": (
        # The decoder would go by the second.
        COLOUR[:33] + png_of(300, 300)[8:],
        "damaged or unusual PNG",
    ),
    "png of no height": (png_of(0, 8), "damaged or unusual PNG"),
    "png with 1.3 million chunks": (
        COLOUR[:33] + write_chunk(b"teXt", b"") * 1_300_000,
        "damaged or unusual PNG",
    ),
    "jpeg with 4 million segments": (JPEG[:2] + b"\xff\xfe\0\2" * 4_000_000, "unusual JPEG"),
    "jpeg that decodes for minutes": (many_scans(), "damaged or unusual JPEG"),
    "webp with 2 million chunks": (
        b"RIFF" + struct.pack("<I", 16_000_004) + b"WEBP" + b"ABCD\0\0\0\0" * 2_000_000,
        "damaged or unusual WebP",
    ),
    "bomb of a png": (png_of(30_000, 30_000), "is 30000x30000 pixels and may have 16384 a side"),
    "bomb of a jpeg": (jpeg_of(30_000, 30_000), "is 30000x30000 pixels"),
    "bomb of a webp": (webp_of(30_000, 30_000), "is 30000x30000 pixels"),
    "long bomb": (png_of(1, 2**31 - 1), "is 2147483647x1 pixels"),
    "bomb of many sides": (png_of(16_000, 16_000), "may have 33554432 in all"),
}
"""By a name: the content of a file, and a part of the sentence that refuses it."""
