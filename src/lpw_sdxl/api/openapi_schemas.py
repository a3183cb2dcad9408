"""The schemas' part of the OpenAPI document: pydantic's, with the server's limits put into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from lpw_sdxl.api.answers import BatchAnswer, InfoAnswer
from lpw_sdxl.api.openapi_errors import error_codes, error_schema
from lpw_sdxl.conditioning.explain import PromptExplanation
from lpw_sdxl.imaging import MEDIA_TYPES
from lpw_sdxl.scheduler_names import SCHEDULER_ALIASES
from lpw_sdxl.schema import (
    BatchRequest,
    GenerationRequest,
    ImageSize,
    InfoRequest,
    InspectionRequest,
    RequestLimits,
)

JsonObject = dict[str, Any]

IMAGE_MEDIA_TYPES = tuple(MEDIA_TYPES.values())
_REFERENCE = "#/components/schemas/{model}"
_NO_NUL = "^[^\\u0000]*$"
_REQUESTS = (GenerationRequest, BatchRequest, InspectionRequest, InfoRequest)
_ANSWERS = (BatchAnswer, PromptExplanation, InfoAnswer)


@dataclass(frozen=True)
class ServedLimits:
    """What a request is held against.

    Attributes:
        request: the limits of the settings.
        native_size: of the served model; what a request has that names no size.
        max_prompt_chunks: of each prompt.
    """

    request: RequestLimits
    native_size: ImageSize
    max_prompt_chunks: int


def component_schemas(limits: ServedLimits) -> JsonObject:
    """Write every schema that the document refers to."""
    schemas = {**_of_types(_REQUESTS, "validation"), **_of_types(_ANSWERS, "serialization")}
    _bound_request(schemas["GenerationRequest"], limits)
    _bound_prompts(schemas["InspectionRequest"]["properties"], limits)
    _bound_batch(schemas["BatchRequest"]["properties"]["requests"], limits)
    codes = tuple(dict.fromkeys(code for codes in error_codes().values() for code in codes))
    schemas["BatchError"]["properties"]["code"]["enum"] = list(codes)
    schemas["Error"] = error_schema(codes)
    return schemas


def example_request(limits: ServedLimits) -> JsonObject:
    """Write a request that this server takes."""
    most = limits.request
    steps = GenerationRequest.model_fields["num_inference_steps"].default
    example = {
        "prompt": "a lighthouse at dusk, (stormy sea:1.3)",
        "num_inference_steps": min(steps, most.max_steps),
        "seed": 7,
    }
    return example | {
        field: getattr(most.max_size, field) // 8 * 8 for field in _sizes_to_be_told(limits)
    }


def seed_header() -> JsonObject:
    """Describe the header that tells an image's seed."""
    return {
        "required": True,
        "description": "The seed; sent again, it makes the same image.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    }


def _of_types(types: tuple[Any, ...], mode: Any) -> JsonObject:
    inputs = [(type_.__name__, mode, TypeAdapter(type_)) for type_ in types]
    _, schema = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE)
    definitions: JsonObject = schema["$defs"]
    return definitions


def _bound_request(schema: JsonObject, limits: ServedLimits) -> None:
    """Put the limits of one image's request into its schema."""
    properties, most = schema["properties"], limits.request
    _bound_prompts(properties, limits)
    steps = properties["num_inference_steps"]
    steps["maximum"] = min(steps["maximum"], most.max_steps)
    if steps["default"] > most.max_steps:
        _require(schema, "num_inference_steps", steps)
    for field in ImageSize._fields:
        side, _ = properties[field]["anyOf"]
        side["maximum"] = min(side["maximum"], getattr(most.max_size, field))
        native = getattr(limits.native_size, field)
        properties[field]["description"] = f"Pixels, a multiple of 8; {native} by default."
    for field in _sizes_to_be_told(limits):
        properties[field] = side = properties[field]["anyOf"][0]
        _require(schema, field, side)
    aliases = {"enum": [*SCHEDULER_ALIASES], "description": "The same in other people's names."}
    properties["scheduler"]["anyOf"].insert(1, aliases)
    properties["loras"]["description"] += f" At most {most.max_loras} different ones."


def _sizes_to_be_told(limits: ServedLimits) -> list[str]:
    """Name the sides that the model's native size has too long for this server."""
    pairs = zip(ImageSize._fields, limits.native_size, limits.request.max_size, strict=True)
    return [field for field, native, most in pairs if native > most]


def _require(schema: JsonObject, field: str, value: JsonObject) -> None:
    """Have a field told, since what would be taken without it is over a limit."""
    schema["required"].append(field)
    value.pop("default", None)


def _bound_prompts(properties: JsonObject, limits: ServedLimits) -> None:
    for field in ("prompt", "negative_prompt"):
        properties[field] |= {
            "maxLength": limits.request.max_prompt_characters,
            "pattern": _NO_NUL,
            "description": properties[field].get("description", "")
            + f" At most {limits.max_prompt_chunks} chunks of 75 tokens.",
        }


def _bound_batch(requests: JsonObject, limits: ServedLimits) -> None:
    """Say what an item should be, and that anything else is an error in its place, not a 400."""
    requests["maxItems"] = limits.request.max_batch_items
    requests["items"] = {
        "anyOf": [
            {"$ref": _REFERENCE.format(model="GenerationRequest")},
            {"description": "Anything else is answered with an error in its place."},
        ]
    }
