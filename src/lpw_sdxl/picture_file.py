"""A picture's file as a field of a request: bytes here, base64 or a data URL in JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

from lpw_sdxl.picture_text import decode_picture_text, refused

PICTURE_FIELDS = ("image", "mask_image")
NEEDED_PICTURES: Mapping[str, str] = {
    "mask_image": "image",
    "strength": "image",
    "resize_mode": "image",
    "invert_mask": "mask_image",
    "mask_blur": "mask_image",
    "masked_content": "mask_image",
    "only_masked": "mask_image",
    "only_masked_padding": "mask_image",
    "paste_back": "mask_image",
}
"""The fields of a request that are about a picture, and the field of that picture."""


def _read(value: object, info: ValidationInfo) -> bytes:
    """Read a picture's file from a text, or take the bytes that were read from it before.

    Args:
        value: of the field. Beside bytes that were read before, an empty text stands here.
        info: its context holds the files that were read before, by their field.
    """
    field = info.field_name or PICTURE_FIELDS[0]
    before: Mapping[str, bytes] = info.context or {}
    if value == "" and field in before:
        return before[field]
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise refused(field, "is no text; send the picture's file as base64 or as a data URL")
    return decode_picture_text(value, field)


def _write(content: bytes) -> str:
    return base64.b64encode(content).decode()


PictureFile = Annotated[
    bytes,
    BeforeValidator(_read),
    PlainSerializer(_write, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""The bytes of a file; what they hold is not looked at. In JSON, base64 or a data URL."""
