"""The picture that a job starts from: read, brought to the job's size, with its mask.

It knows nothing of latents. What is painted from it is put back into the picture at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lpw_sdxl.imaging.files import check_sides
from lpw_sdxl.imaging.mask import Mask, MaskOptions, make_mask
from lpw_sdxl.imaging.masked_fill import fill_masked
from lpw_sdxl.imaging.picture import Picture, PictureLimits, read_picture, read_picture_size
from lpw_sdxl.imaging.repaint import Region, find_region, paste_back
from lpw_sdxl.imaging.resizing import resize, size_to_draw
from lpw_sdxl.picture_text import refused
from lpw_sdxl.schema import (
    MIN_IMAGE_PIXELS,
    GenerationRequest,
    ImageSize,
    MaskedContent,
    ResizeMode,
)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Surroundings:
    """The picture that a repainted part is put back into.

    Attributes:
        original: `[height, width, 3]`.
        mask: `[height, width]`, how much of what was painted is seen.
        region: that was painted, at another size; None is all, at this size.
    """

    original: Pixels
    mask: Mask
    region: Region | None = None

    def put_back(self, painted: Pixels) -> Pixels:
        """Put what was painted into the original; CPU work of milliseconds.

        Args:
            painted: `[h, w, 3]`, at the job's size.

        Returns:
            `[height, width, 3]`, of the original's size.
        """
        return paste_back(self.original, painted, self.mask, self.region)


@dataclass(frozen=True)
class StartImage:
    """A picture of a job's size, and what belongs to it.

    Attributes:
        pixels: `[height, width, 3]`; the masked part is filled where the request wants that.
        mask: `[height, width]`, 255 is painted over; None paints all.
        surroundings: what the painted picture is put back into; None where it stands for itself.
    """

    pixels: Pixels
    mask: Mask | None = None
    surroundings: Surroundings | None = None

    @property
    def nbytes(self) -> int:
        """Count the bytes of its arrays; what stands in two places counts once."""
        arrays = [self.pixels, self.mask]
        if self.surroundings is not None:
            arrays += [self.surroundings.original, self.surroundings.mask]
        return sum({id(one): one.nbytes for one in arrays if one is not None}.values())


def default_size(request: GenerationRequest, limits: PictureLimits) -> ImageSize:
    """Find the size of an image whose request has a picture; sides that it names not are its.

    Args:
        request: with a picture.
        limits: of pictures.

    Raises:
        InvalidRequestError: if the picture can't be read, or is too small to name the size.
    """
    assert request.image is not None
    picture = read_picture_size(request.image, "image", limits)
    own = size_to_draw(picture)
    size = ImageSize(request.height or own.height, request.width or own.width)
    if min(size) < MIN_IMAGE_PIXELS:
        raise refused(
            "image",
            f"is {picture} pixels, and no side of less than {MIN_IMAGE_PIXELS} is drawn; a larger"
            " width and height beside it would be right",
        )
    return size


def read_start_image(
    request: GenerationRequest, size: ImageSize, limits: PictureLimits
) -> StartImage:
    """Read a request's pictures and bring them to a size; CPU work of up to a second.

    Args:
        request: with a picture.
        size: of the job.
        limits: of pictures.

    Raises:
        InvalidRequestError: if a picture can't be read, or a file of the request's format can't be
            as large as the answer; the error names the field.
    """
    assert request.image is not None
    picture = read_picture(request.image, "image", limits)
    if request.only_masked:
        check_sides(picture.size, request.image_format)
    if request.mask_image is None:
        return StartImage(resize(picture.pixels, size, request.resize_mode))
    mask = make_mask(
        read_picture(request.mask_image, "mask_image", limits),
        picture.size,
        MaskOptions(request.invert_mask, request.mask_blur),
    )
    if request.only_masked:
        return _cut_out(picture, mask, request, size)
    original = resize(picture.pixels, size, request.resize_mode)
    fitted = resize(mask, size, request.resize_mode)
    surroundings = Surroundings(original, fitted) if request.paste_back else None
    return StartImage(_fill(original, fitted, request.masked_content), fitted, surroundings)


def _cut_out(
    picture: Picture, mask: Mask, request: GenerationRequest, size: ImageSize
) -> StartImage:
    """Cut out the part around the mask, to be painted at the job's size."""
    region = find_region(mask, size, request.only_masked_padding)
    if region is None:
        raise refused("mask_image", "is all black, and so leaves only_masked nothing to paint over")
    pixels = resize(np.ascontiguousarray(region.cut(picture.pixels)), size, ResizeMode.FILL)
    cut = resize(np.ascontiguousarray(region.cut(mask)), size, ResizeMode.FILL)
    surroundings = Surroundings(picture.pixels, mask, region)
    return StartImage(_fill(pixels, cut, request.masked_content), cut, surroundings)


def _fill(pixels: Pixels, mask: Mask, content: MaskedContent) -> Pixels:
    return fill_masked(pixels, mask) if content is MaskedContent.FILL else pixels
