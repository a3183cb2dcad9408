"""A body to its fields by name: JSON, or a form whose parts are texts and files.

Clients send JSON under any content type or none, so a body that begins like an object is one. In
the result a picture's file is bytes, and what is null or empty is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lpw_sdxl.doors.json_text import is_object
from lpw_sdxl.doors.openai.json_pictures import parse_with_pictures
from lpw_sdxl.doors.openai.multipart import Part, PartBounds, read_boundary, read_parts
from lpw_sdxl.errors import InvalidRequestError

Fields = dict[str, Any]

PICTURES = ("image", "images", "url", "mask")
_EMPTY: tuple[Any, ...] = ("", [], {})
_MAY_BE_EMPTY = ("prompt", "negative_prompt")
_NAME = re.compile(r"([^\[\]]{1,200})((?:\[[^\[\]]{0,64}\]){0,2})")
_KEY = re.compile(r"\[([^\[\]]*)\]")


def read_fields(body: bytes | memoryview, content_type: str, bounds: PartBounds) -> Fields:
    """Read the fields of a body.

    Args:
        body: as it arrived.
        content_type: as the client sent it.
        bounds: on the parts of a form.

    Raises:
        InvalidRequestError: it is neither a form nor a JSON object, or over its bounds.
    """
    if content_type.lower().startswith("multipart/form-data"):
        return without_empty(join_parts(read_parts(body, read_boundary(content_type), bounds)))
    if not is_object(body):
        raise InvalidRequestError("the body is no JSON object and no form (multipart/form-data)")
    return without_empty(parse_with_pictures(body, PICTURES, bounds.text))


def without_empty(fields: Mapping[str, Any]) -> Fields:
    """Leave out what is null or empty, which clients send for absent; prompts may be empty."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and (value not in _EMPTY or name in _MAY_BE_EMPTY)
    }


def join_parts(parts: Iterable[Part]) -> Fields:
    """Join the parts of a form to fields.

    `image[]` and `image[0]` are elements of a list, as is a second `image`; `loras[][name]` is a
    value in an object of a list, which is complete when a name comes again.

    Raises:
        InvalidRequestError: a text is not UTF-8.
    """
    fields: Fields = {}
    for part in parts:
        value: Any = part.content if part.is_file else _decode(part)
        found = _NAME.fullmatch(part.name)
        name, keys = (found[1], _KEY.findall(found[2])) if found else (part.name, [])
        match keys:
            case []:
                _add_plain(fields, name, value)
            case [key] if not key or key.isdecimal():
                _list_at(fields, name).append(value)
            case [key]:
                _add_to_object(_list_at(fields, name), key, value)
            case [index, key]:
                _add_to_object(_list_at(fields, name), key, value, index)
    for name, value in fields.items():
        if isinstance(value, _Elements):
            fields[name] = [*value]
    return fields


class _Elements(list[Any]):
    """A list that is being joined.

    Attributes:
        place: of the last element, as the form has it.
    """

    place: str = ""


def _add_plain(fields: Fields, name: str, value: Any) -> None:
    """Add a value; of several pictures all count, of several other values the last."""
    if name in PICTURES and name in fields:
        before = fields[name]
        fields[name] = [*before, value] if isinstance(before, list) else [before, value]
    else:
        fields[name] = value


def _list_at(fields: Fields, name: str) -> _Elements:
    value = fields.get(name)
    if not isinstance(value, _Elements):
        fields[name] = value = _Elements([] if value is None else [value])
    return value


def _add_to_object(elements: _Elements, key: str, value: Any, place: str = "") -> None:
    last = elements[-1] if elements else None
    if not isinstance(last, dict) or key in last or elements.place != place:
        last = {}
        elements.append(last)
    elements.place = place
    last[key] = value


def _decode(part: Part) -> str:
    try:
        return part.content.decode()
    except UnicodeDecodeError:
        name = part.name[:64]
        raise InvalidRequestError(f"{name} is no text in UTF-8", field=name) from None
