"""A body to a JSON object, as loosely as A1111's clients write it: of any type, and empty for {}.

Files of pictures are cut out of the text before it is parsed: a parser would hold the interpreter
for as long as it copies them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from lpw_sdxl.api.endpoints import Payload
from lpw_sdxl.errors import BodyTooLargeError, InvalidRequestError
from lpw_sdxl.json_bounds import DEFAULT_BOUNDS, JsonBounds, JsonText, find_texts, split_list
from lpw_sdxl.picture_text import decode_json_picture
from lpw_sdxl.refusal import explain_refusal

Model = TypeVar("Model", bound=BaseModel)

SMALL_BYTES = 2**20  # of a body without pictures, and of what is beside them
_HEAD_BYTES = 512
_BLANK = b" \t\r\n"


def ignore_body(_payload: Payload) -> None:
    """Read nothing of a body that has no meaning."""


def read_object(
    text: JsonText, pictures: Collection[str] = (), max_bytes: int | None = None
) -> dict[str, Any]:
    """Read an object; what is null in it is left out, as it stands for a field that is not there.

    Args:
        text: of the body.
        pictures: fields with pictures, whose texts become the bytes of files.
        max_bytes: of a file.

    Raises:
        BodyTooLargeError: there is too much beside pictures.
        InvalidRequestError: it is no JSON object, or over its bounds, or no picture is in a field.
    """
    head = bytes(text[:_HEAD_BYTES]).strip(_BLANK)
    if not text:
        return {}
    if not head.startswith(b"{"):
        raise InvalidRequestError("the body is no JSON object")
    files: dict[str, bytes] = {}
    rest: list[JsonText] = []
    end = 0
    for name, span in sorted(find_texts(text, pictures).items(), key=lambda item: item[1]):
        rest.append(text[end : span.start])
        end = span.end
        if span.end > span.start:
            files[name] = decode_json_picture(text[span.start : span.end], name, max_bytes)
    return {**_parse(b"".join((*rest, text[end:]))), **files}


def read_objects(
    text: JsonText, name: str, pictures: Collection[str], max_bytes: int, most: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read an object with a list of objects that have pictures.

    Args:
        text: of the body.
        name: of the list.
        pictures: fields of its objects, as in `read_object`.
        max_bytes: of a file.
        most: elements of the list.

    Returns:
        The object without the list, and the list's objects.

    Raises:
        InvalidRequestError: as `read_object`; or the list is too long.
    """
    bounds = JsonBounds(values=DEFAULT_BOUNDS.values + most * _VALUES_OF_ONE)
    elements = split_list(text, name, bounds, JsonBounds(values=_VALUES_OF_ONE), f"{name}'s item")
    if len(elements) > most:
        raise InvalidRequestError(
            f"{name} has {len(elements)} items; at most {most} are accepted here", field=name
        )
    objects: list[dict[str, Any]] = []
    rest: list[JsonText] = []
    end = 0
    for element in elements:
        if element.refusal is not None:
            raise element.refusal
        objects.append(_read_element(text[element.start : element.end], name, pictures, max_bytes))
        rest += (text[end : element.start], b"0")
        end = element.end
    return read_object(b"".join((*rest, text[end:]))), objects


def read_model(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """Validate the fields of a model that is read loosely; an empty text is as good as none.

    Raises:
        InvalidRequestError: one is wrong; it is named.
    """
    try:
        return model.model_validate({name: one for name, one in fields.items() if one != ""})
    except ValidationError as error:
        raise explain_refusal(error, model) from None


_VALUES_OF_ONE = 32  # of an object in a list


def _read_element(
    text: JsonText, name: str, pictures: Collection[str], max_bytes: int
) -> dict[str, Any]:
    text = bytes(text).strip(_BLANK)
    if not text.startswith(b"{"):
        raise InvalidRequestError(f"{name} has an item that is no object", field=name)
    return read_object(text, pictures, max_bytes)


def _parse(text: bytes) -> dict[str, Any]:
    if len(text) > SMALL_BYTES:
        raise BodyTooLargeError(
            f"the body is larger than the {SMALL_BYTES} bytes that are accepted here beside"
            " pictures"
        )
    try:
        value = from_json(text)
    except ValueError as error:
        where = re.sub(r"[^ -~]", "?", str(error))[:200]
        raise InvalidRequestError(f"the body is not valid JSON: {where}") from None
    assert isinstance(value, dict)  # it begins like one
    return {name: inner for name, inner in value.items() if inner is not None}
