"""The server's limits, put into the schemas of our own requests, and an example that keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from lpw_sdxl.api.asgi import JsonObject
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.scheduler_table import SCHEDULER_ALIASES
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings

_NO_NUL = "^[^\\u0000]*$"


@dataclass(frozen=True)
class ServedLimits:
    """What a request is held against.

    Attributes:
        request: the limits of the settings.
        native_size: of the served model; what a request has that names no size.
        max_prompt_chunks: of each prompt.
        max_body_bytes: of any body.
    """

    request: RequestLimits
    native_size: ImageSize
    max_prompt_chunks: int
    max_body_bytes: int

    @classmethod
    def from_settings(cls, settings: Settings, native_size: ImageSize) -> ServedLimits:
        """Take the limits that the settings name."""
        return cls(
            RequestLimits.from_settings(settings),
            native_size,
            settings.max_prompt_chunks,
            settings.max_body_bytes,
        )


def example_request(served: ServedLimits) -> JsonObject:
    """Write a request that this server takes."""
    most = served.request
    steps = GenerationRequest.model_fields["num_inference_steps"].default
    example = {
        "prompt": "a lighthouse at dusk, (stormy sea:1.3)",
        "num_inference_steps": min(steps, most.max_steps),
        "seed": 7,
    }
    return example | {
        field: getattr(most.max_size, field) // 8 * 8 for field in _required_sides(served)
    }


def seed_header() -> JsonObject:
    """Describe the header that tells an image's seed."""
    return {
        "required": True,
        "description": "The seed; sent again, it makes the same image.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    }


def limit_request(schema: JsonObject, served: ServedLimits) -> None:
    """Put the limits of one image's request into its schema."""
    properties, most = schema["properties"], served.request
    _bound_prompts(properties, served)
    steps = properties["num_inference_steps"]
    steps["maximum"] = min(steps["maximum"], most.max_steps)
    if steps["default"] > most.max_steps:
        _require(schema, "num_inference_steps", steps)
    for field in ImageSize._fields:
        side, _ = properties[field]["anyOf"]
        side["maximum"] = min(side["maximum"], getattr(most.max_size, field))
        native = getattr(served.native_size, field)
        properties[field]["description"] = f"Pixels, a multiple of 8; {native} by default."
    for field in _required_sides(served):
        properties[field] = side = properties[field]["anyOf"][0]
        _require(schema, field, side)
    aliases = {"enum": [*SCHEDULER_ALIASES], "description": "The same in other people's names."}
    properties["scheduler"]["anyOf"].insert(1, aliases)
    properties["loras"]["description"] += f" At most {most.max_loras} different ones."


def limit_inspection(schema: JsonObject, served: ServedLimits) -> None:
    """Put the limits of an inspection into its schema."""
    _bound_prompts(schema["properties"], served)


def limit_batch(schema: JsonObject, served: ServedLimits) -> None:
    """Say what an item should be, and that anything else is an error in its place, not a 400."""
    requests = schema["properties"]["requests"]
    requests["maxItems"] = served.request.max_batch_items
    requests["items"] = {
        "anyOf": [
            {"$ref": f"#/components/schemas/{GenerationRequest.__name__}"},
            {"description": "Anything else is answered with an error in its place."},
        ]
    }


def _required_sides(served: ServedLimits) -> list[str]:
    """Name the sides that the model's native size has too long for this server."""
    pairs = zip(ImageSize._fields, served.native_size, served.request.max_size, strict=True)
    return [field for field, native, most in pairs if native > most]


def _require(schema: JsonObject, field: str, value: JsonObject) -> None:
    """Have a field told, since what would be taken without it is over a limit."""
    schema["required"].append(field)
    value.pop("default", None)


def _bound_prompts(properties: JsonObject, served: ServedLimits) -> None:
    for field in ("prompt", "negative_prompt"):
        properties[field] |= {
            "maxLength": served.request.max_prompt_characters,
            "pattern": _NO_NUL,
            "description": properties[field].get("description", "")
            + f" At most {served.max_prompt_chunks} chunks of 75 tokens.",
        }
