"""Pixels to the bytes of an image file that says how it was made."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from lpw_sdxl import __version__
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schema import GenerationRequest, ImageFormat, ImageSize, SchedulerName

MEDIA_TYPES: Mapping[ImageFormat, str] = {
    ImageFormat.PNG: "image/png",
    ImageFormat.JPEG: "image/jpeg",
    ImageFormat.WEBP: "image/webp",
}
PNG_COMPRESSION = 1  # level 6 takes five times the CPU for a tenth of the bytes
LOSSY_QUALITY = 95
LARGEST_JPEG_EXIF = 65_533  # bytes: a JPEG segment's length is a 16-bit number that counts itself
AUTOV2_DIGITS = 10  # of a file's SHA-256: the short hash that Civitai and A1111 show


@dataclass(frozen=True)
class ImageRecord:
    """How an image was made.

    Attributes:
        request: what was asked.
        seed: of the image, drawn or asked for.
        size: pixels.
        scheduler: the one that was used.
        model_name: the model's name in the store.
        model_sha256: of the checkpoint's file, hex.
    """

    request: GenerationRequest
    seed: int
    size: ImageSize
    scheduler: SchedulerName
    model_name: str
    model_sha256: str


def parameters_text(record: ImageRecord) -> str:
    """Write down how an image was made, in AUTOMATIC1111's layout, which many tools read."""
    request = record.request
    pairs = {
        "Steps": str(request.num_inference_steps),
        "Sampler": str(record.scheduler),
        "CFG scale": f"{request.guidance_scale:g}",
        "Seed": str(record.seed),
        "Size": str(record.size),
        "Model hash": record.model_sha256[:AUTOV2_DIGITS],
        "Model": record.model_name,
    }
    if request.guidance_rescale:
        pairs["CFG rescale"] = f"{request.guidance_rescale:g}"
    if request.clip_skip is not None:
        # That program counts layers from the end, starting at 1, where ours starts at SDXL's own.
        pairs["Clip skip"] = str(request.clip_skip + 2)
    pairs["Prompt style"] = str(request.prompt_style)
    pairs["Version"] = f"LPW-SDXL {__version__}"
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    lines.append(", ".join(f"{key}: {value}" for key, value in pairs.items()))
    return "\n".join(lines)


def encode_image(
    pixels: npt.NDArray[np.uint8], image_format: ImageFormat, record: ImageRecord
) -> bytes:
    """Encode pixels; CPU work of milliseconds that belongs in a worker thread.

    Args:
        pixels: `[height, width, 3]`.
        image_format: PNG is lossless and carries `parameters` and `seed` as text; JPEG and WebP
            carry the parameters as Exif UserComment.
        record: how the image was made.
    """
    parameters = parameters_text(record)
    image = Image.fromarray(pixels, mode="RGB")
    buffer = io.BytesIO()
    if image_format is ImageFormat.PNG:
        info = PngInfo()
        info.add_text("parameters", parameters)
        info.add_text("seed", str(record.seed))
        image.save(buffer, "PNG", pnginfo=info, compress_level=PNG_COMPRESSION)
    else:
        image.save(
            buffer, image_format.value.upper(), quality=LOSSY_QUALITY, exif=_exif(parameters)
        )
    return buffer.getvalue()


def check_fits(record: ImageRecord) -> None:
    """Check that the file can carry how it was made, before anything is drawn.

    Raises:
        InvalidRequestError: a JPEG was asked for, whose Exif block ends at 64 KB, and the prompts
            need more.
    """
    if record.request.image_format is not ImageFormat.JPEG:
        return
    size = len(_exif(parameters_text(record)))
    if size > LARGEST_JPEG_EXIF:
        raise InvalidRequestError(
            f"image_format jpeg can carry {LARGEST_JPEG_EXIF} bytes of parameters, and these"
            f" prompts make {size}; png and webp carry any number",
            field="image_format",
        )


def _exif(parameters: str) -> bytes:
    """Put the parameters into an Exif block, as the UserComment that other tools read."""
    exif = Image.Exif()
    comment = b"UNICODE\0" + parameters.encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return exif.tobytes()
