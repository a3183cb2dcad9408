"""JSON to requests, checked against this server's own limits; a bad one is refused by its field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.schema import (
    BatchRequest,
    GenerationRequest,
    ImageSize,
    InfoRequest,
    InspectionRequest,
)
from lpw_sdxl.settings import Settings

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class RequestLimits:
    """The server's own limits on a request, tighter than the schema's.

    Attributes:
        max_prompt_characters: of `prompt` and of `negative_prompt`, each.
        max_steps: of `num_inference_steps`.
        max_size: height and width, pixels.
        max_batch_items: requests of one batch.
        max_loras: different LoRAs of one request, the body's and the prompt's together; counted
            when their names are looked up, by `lora.request.collect`.
    """

    max_prompt_characters: int
    max_steps: int
    max_size: ImageSize
    max_batch_items: int
    max_loras: int

    @classmethod
    def from_settings(cls, settings: Settings) -> RequestLimits:
        """Take the limits that the settings name."""
        return cls(
            max_prompt_characters=settings.max_prompt_characters,
            max_steps=settings.max_steps,
            max_size=ImageSize(settings.max_height, settings.max_width),
            max_batch_items=settings.max_batch_items,
            max_loras=settings.max_loras,
        )


def parse_request(body: bytes | str, limits: RequestLimits) -> GenerationRequest:
    """Read one GenerationRequest from JSON and check it against the server's limits.

    Raises:
        InvalidRequestError: a field is wrong; the error names the first one and what would be
            right, and holds no value of the request but numbers.
    """
    request = _read(GenerationRequest, body)
    check_limits(request, limits)
    return request


def validate_request(values: object, limits: RequestLimits) -> GenerationRequest:
    """Read one GenerationRequest from JSON values and check it against the server's limits.

    Raises:
        InvalidRequestError: as `parse_request`.
    """
    try:
        request = GenerationRequest.model_validate(values)
    except ValidationError as error:
        raise explain_refusal(error, GenerationRequest) from None
    check_limits(request, limits)
    return request


def parse_inspection(body: bytes | str, limits: RequestLimits) -> InspectionRequest:
    """Read one InspectionRequest from JSON and check it against the server's limits.

    Raises:
        InvalidRequestError: as `parse_request`.
    """
    request = _read(InspectionRequest, body)
    check_prompt_lengths(request, limits)
    return request


def parse_batch(body: bytes | str, limits: RequestLimits) -> BatchRequest:
    """Read the list of a batch from JSON, not yet its items.

    Raises:
        InvalidRequestError: there is no list, or it is empty or too long.
    """
    batch = _read(BatchRequest, body)
    if len(batch.requests) > limits.max_batch_items:
        raise InvalidRequestError(
            f"requests has {len(batch.requests)} items; at most {limits.max_batch_items} are"
            " accepted here",
            field="requests",
        )
    return batch


def parse_info(body: bytes | str) -> InfoRequest:
    """Read the empty object that /info takes.

    Raises:
        InvalidRequestError: the object is not empty.
    """
    return _read(InfoRequest, body or "{}")


def check_limits(request: GenerationRequest, limits: RequestLimits) -> None:
    """Check a valid request against the server's own limits.

    Raises:
        InvalidRequestError: a field is over its limit; the error names field, value and limit.
    """
    check_prompt_lengths(request, limits)
    numbers = (
        ("num_inference_steps", request.num_inference_steps, limits.max_steps),
        ("height", request.height, limits.max_size.height),
        ("width", request.width, limits.max_size.width),
    )
    for field, value, limit in numbers:
        if value is not None and value > limit:
            default = "" if field in request.model_fields_set else ", its default"
            raise InvalidRequestError(
                f"{field} is {value}{default}; at most {limit} is accepted here", field=field
            )


def check_prompt_lengths(
    request: GenerationRequest | InspectionRequest, limits: RequestLimits
) -> None:
    """Check both prompts against the limit of characters.

    Raises:
        InvalidRequestError: a prompt is too long; the error names it, its length and the limit.
    """
    for field in ("prompt", "negative_prompt"):
        length = len(getattr(request, field))
        if length > limits.max_prompt_characters:
            raise InvalidRequestError(
                f"{field} has {length} characters; at most {limits.max_prompt_characters}"
                " are accepted here",
                field=field,
            )


def _read(model: type[Model], body: bytes | str) -> Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise explain_refusal(error, model) from None
