"""The sampler and the schedule type that a request names, of whichever family has them.

Clients say `scheduler` of a sampler where they have one field, and of a schedule type where they
have two. Nothing named is the model's own.
"""

from __future__ import annotations

from typing import Any

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.sampler_names import split_label
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import (
    SamplerImplementation,
    SigmaScheduleType,
    find_sigma_schedule_type,
)
from lpw_sdxl.schedule_types import find_schedule_type
from lpw_sdxl.scheduler_table import SchedulerName, find_scheduler

_OWN = ("auto", "automatic", "default", "none", "discrete")  # names for the model's own


def choose_sampling(
    sampler: str | None,
    scheduler: str | None,
    schedule_type: str | None,
    implementation: str | None = None,
    *,
    field: str = "sampler",
) -> dict[str, Any]:
    """Choose a request's fields for the names that a client sent, in any spelling.

    Args:
        sampler: by a field of that name.
        scheduler: by a field of that name; a schedule type where there is a sampler as well.
        schedule_type: by our own field.
        implementation: the family, where the client names it.
        field: that names the sampler, as the client spells it, for a refusal.

    Returns:
        `scheduler`, `schedule_type` and `sampler_implementation`, where they are to be set; an
        unknown schedule type stays as it is, to be refused with the known ones.

    Raises:
        InvalidRequestError: no family has the sampler; the message lists both.
    """
    name = _named(sampler) or _named(scheduler)
    spacing = _named(schedule_type) or (_named(scheduler) if _named(sampler) else None)
    if implementation is not None:
        return _fields(name, spacing, implementation)
    if name and not spacing and _is_only_schedule_type(name):
        name, spacing = None, name
    if name and spacing and (joined := find_scheduler(f"{name} {spacing}")):
        return _fields(joined, None)
    if name:
        is_ours = find_scheduler(name) and (not spacing or find_schedule_type(spacing))
        is_known_there = not is_ours and split_label(name)
        if not is_known_there and not find_scheduler(name):
            raise _unknown(field)
        return _fields(name, spacing, SamplerImplementation.K_DIFFUSION if is_known_there else None)
    if spacing and not find_schedule_type(spacing):
        return _fields(None, spacing, SamplerImplementation.K_DIFFUSION)
    return _fields(None, spacing)


def _unknown(field: str) -> InvalidRequestError:
    names = [*SchedulerName, *(one for one in SamplerName if not find_scheduler(one))]
    known = ", ".join(f"'{name}'" for name in names)
    return InvalidRequestError(f"{field}: not a sampler; known are {known}", field=field)


def _named(text: str | None) -> str | None:
    return None if text is None or text.strip().casefold() in _OWN else text.strip() or None


def _is_only_schedule_type(name: str) -> bool:
    known = find_schedule_type(name) or find_sigma_schedule_type(name)
    is_ddim = known is SigmaScheduleType.DDIM  # a sampler, too
    return known is not None and not is_ddim and not find_scheduler(name) and not split_label(name)


def _fields(
    scheduler: str | None, schedule_type: str | None, implementation: str | None = None
) -> dict[str, Any]:
    values = {
        "sampler_implementation": implementation,
        "scheduler": scheduler,
        "schedule_type": schedule_type,
    }
    return {field: value for field, value in values.items() if value is not None}
