"""Pixels and their record to the bytes of a file: PNG, JPEG or WebP."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from PIL import ExifTags, Image

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging.png import encode_png
from lpw_sdxl.imaging.record import ImageRecord, parameters_text
from lpw_sdxl.schema import GenerationRequest, ImageFormat, ImageSize, InspectionRequest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MediaType = Literal["image/png", "image/jpeg", "image/webp"]

MEDIA_TYPES: Mapping[ImageFormat, MediaType] = {
    ImageFormat.PNG: "image/png",
    ImageFormat.JPEG: "image/jpeg",
    ImageFormat.WEBP: "image/webp",
}
# Pillow's own method for WebP, 4 of 0 to 6, takes twice the CPU for 0.3 dB and no fewer bytes.
LOSSY_OPTIONS: Mapping[ImageFormat, Mapping[str, int]] = {
    ImageFormat.JPEG: {"quality": 95},
    ImageFormat.WEBP: {"quality": 95, "method": 2},
}
PREVIEW_QUALITY = 80
MAX_JPEG_EXIF_BYTES = 65_533  # a JPEG segment's length has 16 bits and counts its own two bytes
MAX_WEBP_PIXELS = 16_383  # one side


def encode_image(
    pixels: npt.NDArray[np.uint8],
    image_format: ImageFormat,
    record: ImageRecord,
    quality: int | None = None,
) -> bytes:
    """Encode pixels to the bytes of a file; CPU work of milliseconds, for a worker thread.

    Args:
        pixels: `[height, width, 3]`.
        image_format: PNG is lossless and carries `parameters` and `seed` as text; JPEG and WebP
            carry the parameters as Exif UserComment.
        record: how the image was made.
        quality: of JPEG and WebP, 1 to 95; None is the highest. PNG has none.
    """
    parameters = parameters_text(record)
    if image_format is ImageFormat.PNG:
        return encode_png(pixels, {"parameters": parameters, "seed": str(record.seed)})
    return _encode_lossy(pixels, image_format, parameters, quality)


def encode_plain(
    pixels: npt.NDArray[np.uint8],
    image_format: ImageFormat,
    parameters: str = "",
    quality: int | None = None,
) -> bytes:
    """Encode pixels that no record describes; CPU work as in `encode_image`.

    Args:
        pixels: `[height, width, 3]`.
        image_format: of the file.
        parameters: of the picture that they were made from; empty for none. A JPEG leaves out what
            does not fit into its Exif block of 64 KB.
        quality: as in `encode_image`.
    """
    if image_format is ImageFormat.PNG:
        return encode_png(pixels, {"parameters": parameters} if parameters else {})
    if image_format is ImageFormat.JPEG and len(_encode_exif(parameters)) > MAX_JPEG_EXIF_BYTES:
        parameters = ""
    return _encode_lossy(pixels, image_format, parameters, quality)


def _encode_lossy(
    pixels: npt.NDArray[np.uint8], image_format: ImageFormat, parameters: str, quality: int | None
) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {**LOSSY_OPTIONS[image_format]}
    if parameters:
        options["exif"] = _encode_exif(parameters)
    if quality is not None:
        options["quality"] = quality
    image = Image.fromarray(pixels, mode="RGB")
    image.save(buffer, image_format.value.upper(), **options)
    return buffer.getvalue()


def encode_preview(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode a preview's pixels, `[height, width, 3]`, as a JPEG; a worker thread's work."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode="RGB").save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()


_PROMPTS = ("prompt", "negative_prompt")


def check_texts(request: GenerationRequest | InspectionRequest) -> None:
    """Check that a file can carry the prompts.

    Raises:
        InvalidRequestError: if a prompt holds a NUL, which ends a text in a PNG, and at which other
            tools stop reading a JPEG or WebP.
    """
    second = getattr(request, "hires", None)
    texts = {field: getattr(request, field) for field in _PROMPTS}
    if second is not None:
        texts |= {f"hires.{field}": getattr(second, field) or "" for field in _PROMPTS}
    for field, text in texts.items():
        if "\0" in text:
            raise InvalidRequestError(
                f"{field} holds a NUL character (U+0000), which the text in an image file can't"
                " carry; leave it out",
                field=field,
            )


def check_fits(record: ImageRecord) -> None:
    """Check that the file can carry the record, before the image is generated.

    Raises:
        InvalidRequestError: if a prompt holds a NUL; or if a JPEG is requested and the prompts do
            not fit into its Exif block of 64 KB.
    """
    request = record.request
    check_texts(request)
    if request.image_format is not ImageFormat.JPEG:
        return
    size = len(_encode_exif(parameters_text(record)))
    if size > MAX_JPEG_EXIF_BYTES:
        raise InvalidRequestError(
            f"image_format jpeg can carry {MAX_JPEG_EXIF_BYTES} bytes of parameters, and these"
            f" prompts make {size}; png and webp carry any number",
            field="image_format",
        )


def check_sides(size: ImageSize, image_format: ImageFormat) -> None:
    """Check that a file can have the size of an answer.

    Raises:
        InvalidRequestError: if a WebP is requested, and a side is too long for one.
    """
    if image_format is ImageFormat.WEBP and max(size) > MAX_WEBP_PIXELS:
        raise InvalidRequestError(
            f"image_format webp can have {MAX_WEBP_PIXELS} pixels a side, and the answer is {size};"
            " png and jpeg can be so large",
            field="image_format",
        )


def _encode_exif(parameters: str) -> bytes:
    """Encode the parameters as an Exif block with the UserComment that other tools read."""
    exif = Image.Exif()
    comment = b"UNICODE\0" + parameters.encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return exif.tobytes()
