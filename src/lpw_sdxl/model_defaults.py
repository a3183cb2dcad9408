"""A model's own defaults of requests: read from names and values, and filled into requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.picture_file import NEEDED_PICTURES
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.sampling_options import OF_K_DIFFUSION, SamplerImplementation
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SCHEDULERS, SchedulerName
from lpw_sdxl.schema import GenerationRequest, InspectionRequest

Request = TypeVar("Request", GenerationRequest, InspectionRequest)

# What a picture shows, where it comes from, and what a client asks for its own sake.
_NO_SETTINGS = frozenset(
    {
        "prompt",
        "seed",
        "variation_seed",
        "variation_strength",
        "loras",
        "hires",
        "image",
        "mask_image",
        "invert_mask",
        "only_masked",
        "deadline_s",
        "request_id",
    }
)
DEFAULT_FIELDS = tuple(name for name in GenerationRequest.model_fields if name not in _NO_SETTINGS)
"""The fields that a model may have a default of."""
_FAMILY = "sampler_implementation"
# Of both families, whose names are not the same.
_OF_A_FAMILY = frozenset({"scheduler", "schedule_type", *OF_K_DIFFUSION})


@dataclass(frozen=True)
class ModelDefaults:
    """Values of fields that a request of this model leaves out.

    Attributes:
        values: by field, as a GenerationRequest has them.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> ModelDefaults:
        """Read them from values as JSON has them.

        Raises:
            InvalidRequestError: a field is unknown or no setting, or its value is out of bounds;
                the error names it.
        """
        for name in written:
            if name in _NO_SETTINGS:
                right = ", ".join(DEFAULT_FIELDS)
                raise InvalidRequestError(
                    f"{name} belongs to one picture, and is no default of a model; these can be"
                    f" one: {right}",
                    field=name,
                )
        content = json.dumps({"prompt": "", **written})
        try:
            request = GenerationRequest.model_validate_json(content)
        except ValidationError as error:
            raise explain_refusal(error, GenerationRequest) from None
        return cls({name: getattr(request, name) for name in written})

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.values)

    def as_json(self) -> dict[str, Any]:
        """Return the values as JSON has them, by field."""
        request = GenerationRequest(prompt="", **self.values)
        dumped = request.model_dump(mode="json", include=set(self.values))
        return {name: dumped[name] for name in self.values}

    def fill(self, request: Request) -> Request:
        """Return a request with the values of the fields that it leaves out.

        A default that would not fit what the request says itself is left out, too: of a picture
        where it has none, of a sampler of the other family, of a size where it has a picture, and
        a schedule type that its scheduler does not take. A null is said, and stays. What is filled
        in does not count as set, so that filling twice makes no difference.
        """
        updates = {name: value for name, value in self.values.items() if _lacks(request, name)}
        for name in [*self._unfit(request)]:
            updates.pop(name, None)
        if not updates:
            return request
        filled = request.model_copy(update=updates)
        filled.model_fields_set.difference_update(updates)
        return filled

    def _unfit(self, request: GenerationRequest | InspectionRequest) -> Iterable[str]:
        """Yield the fields whose default would not fit what a request says."""
        own = self.values.get(_FAMILY, SamplerImplementation.DIFFUSERS)
        if _FAMILY in request.model_fields_set and request.sampler_implementation is not own:
            yield from _OF_A_FAMILY
        elif own is SamplerImplementation.DIFFUSERS and not self._takes_type(request):
            yield "schedule_type"
        if isinstance(request, GenerationRequest):
            if request.image is not None:
                yield from ("width", "height")
            for name, picture in NEEDED_PICTURES.items():
                if getattr(request, picture) is None:
                    yield name

    def _takes_type(self, request: GenerationRequest | InspectionRequest) -> bool:
        """Return whether the scheduler of a request takes this schedule type, as far as is said."""
        name, chosen = request.scheduler, self.values.get("schedule_type")
        if name is None or chosen is None or name == self.values.get("scheduler"):
            return True
        recipe = SCHEDULERS[SchedulerName(name)]
        return recipe.follows_model and ScheduleType(chosen) in recipe.schedules


NO_DEFAULTS = ModelDefaults()


def read_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Read `FIELD=VALUE` texts; a value is JSON, or else a text.

    Raises:
        InvalidRequestError: one has no `=`, or two name one field.
    """
    written: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise InvalidRequestError(
                f"{text[:80]!r} is no default; FIELD=VALUE is right, such as guidance_scale=2"
            )
        if name in written:
            raise InvalidRequestError(f"{name} has two values; one would be right", field=name)
        written[name] = _read_value(name, value)
    return written


def write_assignment(name: str, value: object) -> str:
    """Write a default as `read_assignments` reads it."""
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def _read_value(name: str, text: str) -> Any:
    """Read a value as JSON; what is none, or is for a field of texts, is the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    is_text = name in GenerationRequest.model_fields and _is_text(name)
    return text if is_text and not isinstance(value, str) else value


def _is_text(name: str) -> bool:
    return GenerationRequest.model_fields[name].annotation is str


def _lacks(request: GenerationRequest | InspectionRequest, name: str) -> bool:
    """Return whether a request has a field and does not say its value."""
    return name in type(request).model_fields and name not in request.model_fields_set
