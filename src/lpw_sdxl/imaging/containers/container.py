"""What is known of a picture's file before it is decoded, and how one is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.picture_text import refused
from lpw_sdxl.schema import ImageSize

MAX_PARTS = 65_536  # chunks or segments of one file; walking through so many takes 30 ms
MAX_PROFILE_BYTES = 4 * 2**20  # of an ICC profile; the largest in common use have 2.7 MB (CMYK)


class PictureKind(StrEnum):
    """Kind of file that is read."""

    PNG = "PNG"
    JPEG = "JPEG"
    WEBP = "WebP"


@dataclass(frozen=True)
class Container:
    """A picture's file, taken apart.

    Attributes:
        kind: by its first bytes.
        size: as stored, before the Exif orientation is applied; pixels, at least one.
        coded: a file of the same kind, with all that decides the pixels.
        bit_depth: of one sample; 1, 2, 4, 8 or 16.
        exif: its Exif block, or nothing.
        icc_profile: its ICC profile, or nothing.
    """

    kind: PictureKind
    size: ImageSize
    coded: bytes
    bit_depth: int = 8
    exif: bytes = b""
    icc_profile: bytes = b""


def cut_off(field: str, kind: PictureKind) -> InvalidRequestError:
    """Make the error for a file that ends too early."""
    return refused(field, f"is a {kind} that is cut off; send the whole file")


def damaged(field: str, kind: PictureKind) -> InvalidRequestError:
    """Make the error for a file that breaks its format."""
    return refused(
        field, f"is a damaged or unusual {kind} that can't be decoded; save it anew as a PNG"
    )


def animated(field: str, kind: PictureKind) -> InvalidRequestError:
    """Make the error for a file of several frames."""
    return refused(field, f"is an animated {kind}; send one frame, as a PNG, JPEG or WebP")
