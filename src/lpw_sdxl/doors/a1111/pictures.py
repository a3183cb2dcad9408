"""The pictures of A1111's img2img, and how they are used, to fields of our request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lpw_sdxl.doors.a1111.known_fields import DEFAULT_STRENGTH
from lpw_sdxl.doors.a1111.loose_fields import LooseFields
from lpw_sdxl.picture_text import decode_picture_text
from lpw_sdxl.schema import MaskedContent, ResizeMode

RESIZE_MODES = (ResizeMode.STRETCH, ResizeMode.CROP, ResizeMode.FILL)
CONTENTS = (
    *(MaskedContent.FILL, MaskedContent.ORIGINAL),
    *(MaskedContent.LATENT_NOISE, MaskedContent.LATENT_NOTHING),
)
"""Modes of resizing and contents of a masked part, by A1111's numbers."""
DEFAULT_BLUR, DEFAULT_PADDING = 4, 0
MASK = "mask"
_INIT_IMAGES = "init_images"
_LATENT_RESIZE = 3


@dataclass(frozen=True)
class StartPictures:
    """The pictures of a request.

    Attributes:
        images: files to start from, the images of a batch in their order; one is for all.
        mask: a file; None where all is painted.
        is_rounded: whether the mask's transparency is all or nothing.
        native: the other fields of our request.
    """

    images: tuple[bytes, ...]
    mask: bytes | None
    is_rounded: bool
    native: dict[str, Any]


def read_pictures(fields: LooseFields, max_bytes: int) -> StartPictures:
    """Read the pictures.

    Args:
        fields: of the request.
        max_bytes: of a file.

    Raises:
        InvalidRequestError: there is none, or one is no picture or a URL; or a field asks for what
            is not done here.
    """
    images = tuple(
        decode_picture_text(text, _INIT_IMAGES, max_bytes) for text in fields.texts(_INIT_IMAGES)
    )
    if not images:
        raise fields.refuse(_INIT_IMAGES, "is missing; a list of pictures in base64 is right")
    noise = fields.number("initial_noise_multiplier")
    if noise not in (None, 1):
        raise fields.refuse("initial_noise_multiplier", "is not done here; 1 or null is right")
    strength = fields.number("denoising_strength")
    native: dict[str, Any] = {
        "strength": DEFAULT_STRENGTH if strength is None else strength,
        "resize_mode": _choose(fields, "resize_mode", 0, RESIZE_MODES),
    }
    mask = fields.text(MASK)
    if mask is None:
        return StartPictures(images, None, False, native)
    return StartPictures(
        images,
        decode_picture_text(mask, MASK, max_bytes),
        fields.flag("mask_round") is not False,
        native | _read_mask(fields),
    )


def _read_mask(fields: LooseFields) -> dict[str, Any]:
    """Read how a mask is used."""
    if "latent_mask" in fields:
        raise fields.refuse("latent_mask", "is not done here: one mask decides; null is right")
    padding = fields.whole("inpaint_full_res_padding")
    is_whole = fields.flag("inpaint_full_res") is False
    return {
        "mask_blur": _read_blur(fields),
        "masked_content": _choose(fields, "inpainting_fill", 0, CONTENTS),
        "invert_mask": bool(fields.flag("inpainting_mask_invert")),
        "only_masked": not is_whole,
        "only_masked_padding": DEFAULT_PADDING if padding is None else padding,
    }


def _read_blur(fields: LooseFields) -> int:
    """Read a blur that is the same in both directions.

    Raises:
        InvalidRequestError: it is not.
    """
    both = fields.whole("mask_blur")
    if both is not None:
        return both
    across, down = (fields.whole(f"mask_blur_{axis}") for axis in ("x", "y"))
    across = DEFAULT_BLUR if across is None else across
    if across != (DEFAULT_BLUR if down is None else down):
        raise fields.refuse("mask_blur_y", "is another than mask_blur_x; the same is right")
    return across


def _choose(fields: LooseFields, name: str, default: int, choices: tuple[Any, ...]) -> Any:
    """Find what one of A1111's numbers stands for.

    Raises:
        InvalidRequestError: it stands for nothing that is done here.
    """
    number = fields.whole(name)
    number = default if number is None else number
    if not 0 <= number < len(choices):
        listed = ", ".join(f"{index} ({one})" for index, one in enumerate(choices))
        why = ", which stretches latents," if number == _LATENT_RESIZE else ""
        raise fields.refuse(name, f"is {number}{why} and is not done here; right are {listed}")
    return choices[number]
