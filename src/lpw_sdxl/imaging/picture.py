"""A picture that a client sends: the bytes of its file to pixels.

It knows nothing of masks, sizes to draw or how the bytes came. Whatever bytes come, they become a
picture or a refusal: sizes are bounded by the file's header, before anything is decoded.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging.colour import FlatPixels, flatten
from lpw_sdxl.imaging.containers import Container, PictureKind, read_container
from lpw_sdxl.imaging.containers.container import damaged
from lpw_sdxl.imaging.orientation import SIDES_SWAPPED, read_orientation, turn
from lpw_sdxl.imaging.webp_decoder import decode_webp
from lpw_sdxl.picture_text import refused
from lpw_sdxl.schema import ImageSize

_log = logging.getLogger(__name__)

# Not `Image.open`: its registry is changed by whatever else is imported, and it warns of sizes that
# are bounded here.
_DECODERS: Mapping[PictureKind, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    PictureKind.PNG: PngImagePlugin.PngImageFile,
    PictureKind.JPEG: JpegImagePlugin.JpegImageFile,
    PictureKind.WEBP: WebPImagePlugin.WebPImageFile,
}


@dataclass(frozen=True)
class PictureLimits:
    """The most that a picture may cost.

    Attributes:
        max_bytes: of its file.
        max_pixels: height times width. Reading takes up to 20 bytes of memory for each (WebP).
        max_side: pixels.
    """

    max_bytes: int = 16 * 2**20
    max_pixels: int = 2**25
    max_side: int = 2**14


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: `[height, width, 3]`, sRGB; on white where the picture is transparent.
        alpha: `[height, width]`, 0 is transparent; None where all of it is opaque.
    """

    pixels: npt.NDArray[np.uint8]
    alpha: npt.NDArray[np.uint8] | None = None

    @property
    def size(self) -> ImageSize:
        """Height and width, pixels."""
        return ImageSize(*self.pixels.shape[:2])


def read_picture(content: bytes, field: str, limits: PictureLimits) -> Picture:
    """Read a PNG, JPEG or WebP; CPU work of up to a second, for a worker thread.

    The Exif orientation is applied, an ICC profile converted to sRGB, transparency put on white.

    Args:
        content: of the file.
        field: of the request, for refusals.
        limits: beyond which a picture is refused.

    Raises:
        InvalidRequestError: if it is of another kind, animated, damaged, cut off, or too large.
    """
    container = _open(content, field, limits)
    orientation = read_orientation(container.exif)
    colours, alpha = _decode(container, field)
    return Picture(turn(colours, orientation), None if alpha is None else turn(alpha, orientation))


def read_picture_size(content: bytes, field: str, limits: PictureLimits) -> ImageSize:
    """Read the size that `read_picture` will give, without decoding; it takes milliseconds.

    Args:
        content: as in `read_picture`.
        field: likewise.
        limits: likewise.

    Raises:
        InvalidRequestError: as `read_picture`, but for damage that shows only in decoding.
    """
    container = _open(content, field, limits)
    size = container.size
    is_turned = read_orientation(container.exif) in SIDES_SWAPPED
    return ImageSize(size.width, size.height) if is_turned else size


def _open(content: bytes, field: str, limits: PictureLimits) -> Container:
    if len(content) > limits.max_bytes:
        raise refused(
            field, f"has {len(content)} bytes and may have {limits.max_bytes}; send a smaller file"
        )
    container = read_container(content, field)
    _check_size(container.size, field, limits)
    return container


def _check_size(size: ImageSize, field: str, limits: PictureLimits) -> None:
    if max(size) > limits.max_side:
        raise refused(
            field, f"is {size} pixels and may have {limits.max_side} a side; make it smaller"
        )
    if size.height * size.width > limits.max_pixels:
        raise refused(
            field, f"is {size} pixels and may have {limits.max_pixels} in all; make it smaller"
        )


def _decode(container: Container, field: str) -> FlatPixels:
    try:
        with _load(container, field) as image:
            return flatten(image, container.icc_profile, container.bit_depth)
    except (InvalidRequestError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise any kind for bad bytes
        _log.info("A %s can't be decoded: %s", container.kind, error)
        raise damaged(field, container.kind) from error


def _load(container: Container, field: str) -> Image.Image:
    if container.kind is PictureKind.WEBP:
        image = decode_webp(container.coded, container.size)
        if image is not None:
            return image
    opened = _DECODERS[container.kind](io.BytesIO(container.coded))
    if opened.size != (container.size.width, container.size.height):
        raise damaged(field, container.kind)
    opened.load()
    return opened
