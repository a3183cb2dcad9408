"""JSON to requests: pictures cut out, what is left parsed, a bad one refused by its field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lpw_sdxl.errors import BodyTooLargeError, InvalidRequestError
from lpw_sdxl.json_bounds import (
    DEFAULT_BOUNDS,
    JsonBounds,
    JsonElement,
    JsonText,
    check_bounds,
    find_texts,
    split_list,
)
from lpw_sdxl.picture_file import PICTURE_FIELDS
from lpw_sdxl.picture_text import decode_json_picture
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import RequestLimits, check_inspection, check_limits
from lpw_sdxl.schema import (
    BatchRequest,
    BatchStreamRequest,
    GenerationRequest,
    InfoRequest,
    InspectionRequest,
    StreamRequest,
)

Model = TypeVar("Model", bound=BaseModel)
Generation = TypeVar("Generation", bound=GenerationRequest)

ESCAPED_CHARACTER_BYTES = 12  # its longest form in JSON: a pair of \uXXXX
OTHER_FIELDS_BYTES = 64 * 1024  # all but the prompts; 16 LoRAs with escaped names take a third
BASE64_BYTES = 4 / 3  # of one byte
WRAPPED_BYTES = 1.1  # of one of base64 in lines, with some of its letters escaped
AN_ITEM = "an item of requests"
# Of a text that is no JSON. A longer one is not parsed to find where: that holds the interpreter.
LONGEST_EXPLAINED_BYTES = 2**20
_OBJECT = re.compile(rb"[ \t\r\n]*+\{")


@dataclass(frozen=True)
class ParsedBatch:
    """A batch that was read.

    Attributes:
        items: in order: requests, and the refusals of those that are none.
        preview_every: of a stream: UNet calls from one preview to the next; 0 for none.
    """

    items: tuple[GenerationRequest | InvalidRequestError, ...]
    preview_every: int = 0


def largest_request_bytes(prompt_characters: int) -> int:
    """Compute the bytes of the largest JSON that a request can need, for its longest prompts."""
    return 2 * prompt_characters * ESCAPED_CHARACTER_BYTES + OTHER_FIELDS_BYTES


def largest_generation_bytes(limits: RequestLimits) -> int:
    """Compute the bytes of the largest JSON of a GenerationRequest, for its two pictures, too."""
    pictures = len(PICTURE_FIELDS) * largest_picture_bytes(limits)
    return pictures + largest_request_bytes(limits.max_prompt_characters)


def largest_picture_bytes(limits: RequestLimits) -> int:
    """Compute the bytes of the largest JSON of one picture."""
    return int(limits.max_image_bytes * BASE64_BYTES * WRAPPED_BYTES)


def parse_request(body: JsonText | str, limits: RequestLimits) -> GenerationRequest:
    """Read one GenerationRequest from JSON and check it against the server's limits.

    Raises:
        InvalidRequestError: a field is wrong; the error names the first one and what would be
            right, and holds no value of the request but numbers.
    """
    return _read_generation(GenerationRequest, body, limits)


def parse_stream(body: JsonText | str, limits: RequestLimits) -> StreamRequest:
    """Read one StreamRequest from JSON and check it against the server's limits.

    Raises:
        InvalidRequestError: as `parse_request`.
    """
    return _read_generation(StreamRequest, body, limits)


def parse_inspection(body: JsonText | str, limits: RequestLimits) -> InspectionRequest:
    """Read one InspectionRequest from JSON and check it against the server's limits.

    Raises:
        InvalidRequestError: as `parse_request`.
    """
    request = _read(InspectionRequest, body)
    check_inspection(request, limits)
    return request


def parse_batch(
    body: JsonText | str, limits: RequestLimits, model: type[BatchRequest] = BatchRequest
) -> ParsedBatch:
    """Read a batch from JSON: each item on its own, as `parse_request` reads a body.

    Args:
        body: JSON.
        limits: of this server.
        model: of the whole batch.

    Raises:
        InvalidRequestError: there is no list, it is empty or too long, or the body is over its
            bounds or no JSON. What is wrong with one item becomes that item's refusal.
    """
    text = body.encode() if isinstance(body, str) else body
    most = limits.max_batch_items
    whole = JsonBounds(values=most * (DEFAULT_BOUNDS.values + 1))
    item = JsonBounds(size=largest_generation_bytes(limits))
    elements = split_list(text, "requests", whole, item, AN_ITEM)
    apart = [one for one in elements if one.refusal is not None or _is_object(text, one)]
    try:
        batch = model.model_validate_json(_without(text, apart))
    except ValidationError as error:
        raise _explain_part(error, text, model) from None
    if len(elements) > most:
        raise InvalidRequestError(
            f"requests has {len(elements)} items; at most {most} are accepted here",
            field="requests",
        )
    items = tuple(_parse_element(text, element, limits) for element in elements)
    return ParsedBatch(items, batch.preview_every if isinstance(batch, BatchStreamRequest) else 0)


def parse_info(body: JsonText | str) -> InfoRequest:
    """Read the empty object that /info takes.

    Raises:
        InvalidRequestError: the object is not empty.
    """
    return _read(InfoRequest, body or "{}")


def read_with_pictures(model: type[Model], body: JsonText | str, limits: RequestLimits) -> Model:
    """Read a model whose fields of pictures have the names that a GenerationRequest's have.

    Args:
        model: to read.
        body: JSON.
        limits: of this server, for the bytes of pictures and of all else.

    Raises:
        InvalidRequestError: as `parse_request`.
    """
    text = body.encode() if isinstance(body, str) else body
    try:
        return _validate_pictures(model, text, limits)
    except ValidationError as error:
        raise _explain_part(error, text, model) from None


def _parse_element(
    text: JsonText, element: JsonElement, limits: RequestLimits
) -> GenerationRequest | InvalidRequestError:
    """Read one item of a batch.

    Raises:
        InvalidRequestError: the item is no JSON, and so is the whole text.
    """
    if not _is_object(text, element):
        return InvalidRequestError(f"{AN_ITEM} is an object, as /generate takes it")
    if element.refusal is not None:
        return element.refusal
    try:
        return _validate(GenerationRequest, text[element.start : element.end], limits)
    except ValidationError as error:
        if _is_broken(error):
            raise _explain_part(error, text, BatchRequest) from None
        return explain_refusal(error, GenerationRequest)
    except BodyTooLargeError:
        most = largest_request_bytes(limits.max_prompt_characters)
        return InvalidRequestError(f"{AN_ITEM} has more than {most} bytes beside its pictures")
    except InvalidRequestError as error:
        # Its frames hold the text, and so do those of the error that caused it.
        error.__context__ = error.__cause__ = None
        return error.with_traceback(None)


def _read_generation(
    model: type[Generation], body: JsonText | str, limits: RequestLimits
) -> Generation:
    """Read one image's request.

    Raises:
        InvalidRequestError: as `parse_request`.
    """
    text = body.encode() if isinstance(body, str) else body
    try:
        return _validate(model, text, limits)
    except ValidationError as error:
        raise _explain_part(error, text, model) from None


def _validate(model: type[Generation], text: JsonText, limits: RequestLimits) -> Generation:
    """Validate one image's request and check its limits.

    Raises:
        InvalidRequestError: a picture's text is none, or a limit is broken.
        ValidationError: the model refuses the rest.
    """
    request = _validate_pictures(model, text, limits)
    check_limits(request, limits)
    return request


def _validate_pictures(model: type[Model], text: JsonText, limits: RequestLimits) -> Model:
    """Validate a model that may have pictures.

    The pictures' texts are cut out of the JSON first and decoded on their own: a parser would hold
    the interpreter for as long as it copies them.

    Raises:
        InvalidRequestError: a picture's text is none, or there is too much beside pictures.
        ValidationError: the model refuses the rest.
    """
    found = find_texts(text, PICTURE_FIELDS)
    most = largest_request_bytes(limits.max_prompt_characters)
    left = len(text) - sum(span.end - span.start for span in found.values())
    if left > most:
        raise BodyTooLargeError(
            f"the body is larger than the {most} bytes that are accepted here beside pictures"
        )
    files: dict[str, bytes] = {}
    rest: list[JsonText] = []
    end = 0
    for field, span in sorted(found.items(), key=lambda item: item[1]):
        picture = text[span.start : span.end]
        files[field] = decode_json_picture(picture, field, limits.max_image_bytes)
        rest.append(text[end : span.start])
        end = span.end
    whole = b"".join((*rest, text[end:]))
    return model.model_validate_json(whole, context=files)


def _explain_part(
    error: ValidationError, text: JsonText, model: type[BaseModel]
) -> InvalidRequestError:
    """Explain the refusal of a part of a text; where it is broken is counted in the whole."""
    if _is_broken(error) and len(text) > LONGEST_EXPLAINED_BYTES:
        what = error.errors(include_url=False)[0]["ctx"]["error"].partition(" at line ")[0]
        return InvalidRequestError(f"the body is not valid JSON: {what}")
    if _is_broken(error):
        try:
            model.model_validate_json(bytes(text))
        except ValidationError as whole:
            error = whole
    return explain_refusal(error, model)


def _is_broken(error: ValidationError) -> bool:
    """Return whether a text was refused because it is no JSON."""
    return error.errors(include_url=False)[0]["type"] == "json_invalid"


def _is_object(text: JsonText, element: JsonElement) -> bool:
    return _OBJECT.match(text, element.start, element.end) is not None  # no copy of megabytes


def _without(text: JsonText, elements: Sequence[JsonElement]) -> bytes:
    """Return a JSON text with a number in the place of each element."""
    pieces: list[JsonText] = []
    end = 0
    for element in elements:
        pieces += (text[end : element.start], b"0")
        end = element.end
    return b"".join((*pieces, text[end:]))


def _read(model: type[Model], body: JsonText | str) -> Model:
    text = body.encode() if isinstance(body, str) else body
    check_bounds(text)
    try:
        return model.model_validate_json(bytes(text))
    except ValidationError as error:
        raise explain_refusal(error, model) from None
