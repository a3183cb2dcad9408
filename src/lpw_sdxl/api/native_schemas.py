"""The server's limits in the schemas of our own requests, and an example within them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lpw_sdxl.api.asgi import JsonObject
from lpw_sdxl.parameters.request import most_characters
from lpw_sdxl.picture_file import PICTURE_FIELDS
from lpw_sdxl.request_limits import RequestLimits, default_largest_size
from lpw_sdxl.sampler_table import SAMPLER_ALIASES
from lpw_sdxl.sampling_options import SIGMA_SCHEDULE_TYPE_ALIASES
from lpw_sdxl.schedule_types import SCHEDULE_TYPE_ALIASES
from lpw_sdxl.scheduler_table import SCHEDULER_ALIASES
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings

_SCHEDULER_ALIASES = {**SCHEDULER_ALIASES, **SAMPLER_ALIASES}
_SCHEDULE_TYPE_ALIASES = {**SCHEDULE_TYPE_ALIASES, **SIGMA_SCHEDULE_TYPE_ALIASES}
_NO_NUL = "^[^\\u0000]*$"


@dataclass(frozen=True)
class ServedLimits:
    """The limits that a request is checked against.

    Attributes:
        request: the limits of the settings.
        native_size: of the served model; the size of a request that names none.
        max_prompt_chunks: of each prompt.
        max_body_bytes: of any request.
    """

    request: RequestLimits
    native_size: ImageSize
    max_prompt_chunks: int
    max_body_bytes: int

    @classmethod
    def from_settings(
        cls, settings: Settings, native_size: ImageSize, *, is_on_cpu: bool = False
    ) -> ServedLimits:
        """Read the limits from the settings."""
        default_size = default_largest_size(native_size, is_on_cpu=is_on_cpu)
        return cls(
            RequestLimits.from_settings(settings, default_size),
            native_size,
            settings.max_prompt_chunks,
            settings.max_body_bytes,
        )


def example_request(served: ServedLimits) -> JsonObject:
    """Build a request that this server accepts."""
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
    """Describe the header that holds an image's seed."""
    return {
        "required": True,
        "description": "The seed; sent again, it makes the same image.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    }


def limit_request(schema: JsonObject, served: ServedLimits) -> None:
    """Put the limits of one image's request into its schema."""
    properties, most = schema["properties"], served.request
    _bound_prompts(properties, served)
    steps = _bound_steps(properties, served)
    if steps["default"] > most.max_steps:
        _require(schema, "num_inference_steps", steps)
    for field in ImageSize._fields:
        side, _ = properties[field]["anyOf"]
        side["maximum"] = min(side["maximum"], getattr(most.max_size, field))
        native = getattr(served.native_size, field)
        properties[field]["description"] = (
            f"Pixels, a multiple of 8; as many as `image` has, else {native} by default."
        )
    for field in _required_sides(served):
        properties[field] = side = properties[field]["anyOf"][0]
        _require(schema, field, side)
    for field in PICTURE_FIELDS:
        properties[field]["description"] += f" At most {most.max_image_bytes} bytes."
    _add_aliases(properties, "scheduler", "schedulers", _SCHEDULER_ALIASES)
    _add_aliases(properties, "schedule_type", "schedule types", _SCHEDULE_TYPE_ALIASES)
    properties["loras"]["description"] += f" At most {most.max_loras} different ones."


def limit_inspection(schema: JsonObject, served: ServedLimits) -> None:
    """Put the limits of an inspection into its schema."""
    properties = schema["properties"]
    _bound_prompts(properties, served)
    steps = _bound_steps(properties, served)
    steps["default"] = min(steps["default"], steps["maximum"])
    _add_aliases(properties, "scheduler", "schedulers", _SCHEDULER_ALIASES)


def limit_parameters(schema: JsonObject, served: ServedLimits) -> None:
    """Put the limits of a text, or of a picture that holds one, into its schema."""
    text, _ = schema["properties"]["parameters"]["anyOf"]
    text["maxLength"] = most_characters(served.request)
    most = served.request.max_image_bytes
    schema["properties"]["image"]["description"] += f" At most {most} bytes."
    schema["minProperties"] = 1


def limit_upscale(schema: JsonObject, served: ServedLimits) -> None:
    """Put the limits of a picture to enlarge into its schema."""
    most = served.request
    properties = schema["properties"]
    properties["image"]["description"] += f" At most {most.max_image_bytes} bytes."
    for field in ("scale", *ImageSize._fields):
        properties[field]["description"] += (
            f" The answer has at most {most.max_upscaled_pixels} pixels in all."
        )


def limit_batch(schema: JsonObject, served: ServedLimits) -> None:
    """Describe a batch's items: requests; anything else is an error at its index, not a 400."""
    requests = schema["properties"]["requests"]
    requests["maxItems"] = served.request.max_batch_items
    requests["items"] = {
        "anyOf": [
            {"$ref": f"#/components/schemas/{GenerationRequest.__name__}"},
            {"description": "Anything else is answered with an error at its index."},
        ]
    }


def _required_sides(served: ServedLimits) -> list[str]:
    """List the fields of the sides whose native length is over this server's limit."""
    pairs = zip(ImageSize._fields, served.native_size, served.request.max_size, strict=True)
    return [field for field, native, most in pairs if native > most]


def _require(schema: JsonObject, field: str, value: JsonObject) -> None:
    """Make a field required, since its default is over a limit."""
    schema["required"].append(field)
    value.pop("default", None)


def _bound_steps(properties: JsonObject, served: ServedLimits) -> JsonObject:
    """Bound the number of steps and return its schema."""
    steps: JsonObject = properties["num_inference_steps"]
    steps["maximum"] = min(steps["maximum"], served.request.max_steps)
    return steps


def _add_aliases(properties: JsonObject, field: str, noun: str, aliases: Iterable[str]) -> None:
    others = f"The same {noun} by the names that other tools use."
    kinds = properties[field]["anyOf"]
    kinds.insert(len(kinds) - 1, {"enum": [*aliases], "description": others})  # null is the last


def _bound_prompts(properties: JsonObject, served: ServedLimits) -> None:
    for field in ("prompt", "negative_prompt"):
        properties[field] |= {
            "maxLength": served.request.max_prompt_characters,
            "pattern": _NO_NUL,
            "description": properties[field].get("description", "")
            + f" At most {served.max_prompt_chunks} chunks of 75 tokens.",
        }
