"""A job's `input` to an order: the images' requests, and how the job is reported on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpw_sdxl.doors.loras import read_loras
from lpw_sdxl.doors.runpod.fields import OPTIONS, SAMPLING, SpelledFields, read_fields
from lpw_sdxl.doors.sampling import choose_sampling
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.field_types import SEEDS
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import RequestLimits, check_limits
from lpw_sdxl.schema import GenerationRequest, PreviewEvery

_SAMPLER_FIELD = "sampler_name"


class JobOptions(BaseModel):
    """The fields of a job that no image has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_images: Annotated[int, Field(ge=1)] = 1
    progress: bool = False
    preview_every: PreviewEvery = 0


@dataclass(frozen=True)
class JobOrder:
    """The images of one job.

    Attributes:
        requests: of the images; they differ by their seeds alone.
        has_progress: whether the job is reported on while it is made.
        preview_every: UNet calls from one preview to the next; 0 for none.
    """

    requests: tuple[GenerationRequest, ...]
    has_progress: bool = False
    preview_every: int = 0


def translate(value: object, limits: RequestLimits) -> JobOrder:
    """Translate a job's `input`; CPU work of up to 100 ms where it has pictures.

    Args:
        value: of `input`.
        limits: of this server.

    Raises:
        InvalidRequestError: a field is wrong; it is named as the client did.
    """
    fields = read_fields(value)
    try:
        options = _read_options(fields, limits)
        native = _native(fields)
        first = GenerationRequest.model_validate(native, strict=False)
        check_limits(first, limits)
    except ValidationError as error:
        raise _spell(explain_refusal(error, GenerationRequest), fields.spelled) from None
    except InvalidRequestError as error:
        raise _spell(error, fields.spelled) from None
    return JobOrder(
        requests=tuple(_repeat(first, options.num_images)),
        has_progress=options.progress or options.preview_every > 0,
        preview_every=options.preview_every,
    )


def _read_options(fields: SpelledFields, limits: RequestLimits) -> JobOptions:
    """Take the job's own fields out of the others."""
    own = {name: fields.values.pop(name) for name in OPTIONS if name in fields.values}
    try:
        options = JobOptions.model_validate(own)
    except ValidationError as error:
        raise explain_refusal(error, JobOptions) from None
    if options.num_images > limits.max_batch_items:
        raise InvalidRequestError(
            f"num_images is {options.num_images}; at most {limits.max_batch_items} is accepted"
            " here",
            field="num_images",
        )
    return options


def _native(fields: SpelledFields) -> dict[str, Any]:
    """Return the fields of our request."""
    native = {name: one for name, one in fields.values.items() if name not in SAMPLING}
    if "loras" in native:
        native["loras"] = read_loras(native["loras"], "loras")
    names = [_name(fields, name) for name in SAMPLING]
    field = _SAMPLER_FIELD if _SAMPLER_FIELD in fields.values else "scheduler"
    return native | choose_sampling(*names, field=field)


def _name(fields: SpelledFields, name: str) -> str | None:
    value = fields.values.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequestError(f"{name} is no text; a name would be right", field=name)


def _repeat(first: GenerationRequest, count: int) -> list[GenerationRequest]:
    """Return a number of requests whose seeds follow the first one's; unnamed, each draws one."""
    if count == 1:
        return [first]
    changes: list[dict[str, Any]] = [{} for _ in range(count)]
    for index, change in enumerate(changes):
        if first.seed is not None:
            change["seed"] = (first.seed + index) % SEEDS
        if first.request_id is not None:
            change["request_id"] = f"{first.request_id}-{index}"
    return [first.model_copy(update=change) for change in changes]


def _spell(refusal: InvalidRequestError, spelled: Mapping[str, str]) -> InvalidRequestError:
    """Name the field of a refusal as the client did."""
    ours, dot, rest = (refusal.field or "").partition(".")
    name = spelled.get(ours)
    if ours == "scheduler" and _SAMPLER_FIELD in spelled:
        name = spelled[_SAMPLER_FIELD]
    if ours == "schedule_type" and ours not in spelled:
        name = spelled.get("scheduler")
    if name is None or name == ours:
        return refusal
    message = refusal.message
    if message.startswith((f"{ours} ", f"{ours}:", f"{ours}.")):
        message = name + message[len(ours) :]
    return InvalidRequestError(message, field=f"{name}{dot}{rest}")
