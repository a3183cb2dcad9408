"""The pictures of an edit: files of a form, or texts of JSON, to the bytes of files.

No URL is fetched; one that holds its picture (`data:`) is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lpw_sdxl.doors.openai.fields import PICTURES, Fields
from lpw_sdxl.doors.openai.json_pictures import CutText
from lpw_sdxl.picture_text import decode_json_picture, decode_picture_text, refused

MASK = "mask"
STARTS = tuple(name for name in PICTURES if name != MASK)
_KEYS = ("image_url", "url", "b64_json", "image")  # of a picture that is an object in JSON
_DEPTH = 3


def take_pictures(fields: Fields, max_bytes: int) -> list[bytes]:
    """Remove the pictures to start from, in their order, and return their files.

    Args:
        fields: of the request; what is read is removed from them.
        max_bytes: of a file.

    Raises:
        InvalidRequestError: a picture is none, too large, or somewhere else.
    """
    found = [fields.pop(name, None) for name in STARTS]
    # One that is none counts: its client meant a picture.
    return [_read(one, "image", max_bytes) for value in found for one in _flatten(value)]


def take_mask(fields: Fields, max_bytes: int) -> bytes | None:
    """Remove the mask and return its file; None where there is none.

    Raises:
        InvalidRequestError: as `take_pictures`.
    """
    masks = [*_flatten(fields.pop(MASK, None))]
    if len(masks) > 1:
        raise refused(MASK, f"is there {len(masks)} times; one would be right")
    return _read(masks[0], MASK, max_bytes) if masks else None


def _flatten(value: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Yield what stands in lists and in the objects of JSON that hold a picture."""
    if isinstance(value, list) and depth:
        for inner in value:
            yield from _flatten(inner, depth - 1)
    elif isinstance(value, dict) and depth:
        inner = next((value[key] for key in _KEYS if value.get(key)), None)
        yield from _flatten(value if inner is None else inner, 0 if inner is None else depth - 1)
    elif value is not None and value not in ("", b""):
        yield value


def _read(value: Any, field: str, max_bytes: int) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, CutText):
        return decode_json_picture(value.content, field, max_bytes)
    if not isinstance(value, str):
        raise refused(field, "is no picture; send a file, or base64 as a text")
    return decode_picture_text(value, field, max_bytes)
