"""Names of schedulers, samplers and schedule types as requests have them, read by their family.

The same name may stand for two things: `sgm_uniform` is the type `trailing` with Diffusers'
schedulers and a type of its own with k-diffusion's samplers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError, PydanticKnownError

from lpw_sdxl.sampler_table import SamplerName, find_sampler, read_sampler
from lpw_sdxl.sampling_options import (
    SamplerImplementation,
    SigmaScheduleType,
    find_sigma_schedule_type,
    read_sigma_schedule_type,
)
from lpw_sdxl.schedule_types import ScheduleType, find_schedule_type, read_schedule_type
from lpw_sdxl.scheduler_table import SchedulerName, find_scheduler, read_scheduler
from lpw_sdxl.spelling import LONGEST_NAME

IMPLEMENTATION_FIELD = "sampler_implementation"  # declared before the fields that it decides


class SamplerLabel(NamedTuple):
    """A sampler, and the schedule type that its label names, if it names one."""

    sampler: SamplerName
    schedule_type: SigmaScheduleType | None


def split_label(text: str) -> SamplerLabel | None:
    """Take a label such as `DPM++ 2M SDE Karras` apart, in any spelling; None for other texts."""
    alone = find_sampler(text)
    if alone is not None:
        return SamplerLabel(alone, None)
    if len(text) > LONGEST_NAME:
        return None
    label = find_scheduler(text) or text  # also by the old short names, `k_dpmpp_2m_ka`
    alone = find_sampler(label)
    if alone is not None:
        return SamplerLabel(alone, None)
    words = label.replace("_", " ").replace("-", " ").split()
    for end in range(len(words) - 1, 0, -1):
        sampler = find_sampler(" ".join(words[:end]))
        schedule_type = find_sigma_schedule_type(" ".join(words[end:]))
        if sampler is not None and schedule_type is not None:
            return SamplerLabel(sampler, schedule_type)
    return None


def read_scheduler_name(value: object, info: ValidationInfo) -> object:
    """Convert the name of a scheduler or sampler to ours, for pydantic.

    Raises:
        PydanticCustomError: the request's family has none of this name.
    """
    return scheduler_of(value, info.data.get(IMPLEMENTATION_FIELD))


def read_schedule_type_name(value: object, info: ValidationInfo) -> object:
    """Convert the name of a schedule type to ours, for pydantic.

    Raises:
        PydanticCustomError: the request's family has none of this name.
    """
    return schedule_type_of(value, info.data.get(IMPLEMENTATION_FIELD))


def scheduler_of(value: object, family: SamplerImplementation | None) -> object:
    """Convert the name of a family's scheduler or sampler to ours, in any spelling.

    Raises:
        PydanticCustomError: the family has none of this name.
        PydanticKnownError: it is no text.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        is_k = family is SamplerImplementation.K_DIFFUSION
        raise _no_text(SamplerName if is_k else SchedulerName)
    if family is SamplerImplementation.K_DIFFUSION:
        label = split_label(value)
        if label is None:
            scheduler = find_scheduler(value)
            if scheduler is not None:
                raise _of_other_family(scheduler, "schedulers", SamplerImplementation.DIFFUSERS)
            return read_sampler(value)  # which explains
        if label.schedule_type is None:
            return label.sampler
        name = find_scheduler(f"{label.sampler} {label.schedule_type}")
        if name is None:
            raise PydanticCustomError(
                "joined_name",
                "a sampler and a schedule type in one; scheduler '{sampler}' with schedule_type"
                " '{schedule_type}' would be right",
                {"sampler": str(label.sampler), "schedule_type": str(label.schedule_type)},
            )
        return name
    sampler = find_sampler(value)
    if sampler is not None and find_scheduler(value) is None:
        raise _of_other_family(sampler, "samplers", SamplerImplementation.K_DIFFUSION)
    return read_scheduler(value)


def schedule_type_of(value: object, family: SamplerImplementation | None) -> object:
    """Convert the name of a family's schedule type to ours, in any spelling.

    Raises:
        PydanticCustomError: the family has none of this name.
        PydanticKnownError: it is no text.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        is_k = family is SamplerImplementation.K_DIFFUSION
        raise _no_text(SigmaScheduleType if is_k else ScheduleType)
    here, there = find_schedule_type(value), find_sigma_schedule_type(value)
    if family is SamplerImplementation.K_DIFFUSION:
        if there is None and here is not None:
            raise _of_other_family(here, "schedule types", SamplerImplementation.DIFFUSERS)
        return read_sigma_schedule_type(value)
    if here is None and there is not None:
        raise _of_other_family(there, "schedule types", SamplerImplementation.K_DIFFUSION)
    return read_schedule_type(value)


def _no_text(names: type[StrEnum]) -> PydanticKnownError:
    """Build the error of a value that is no text; the union's own would be one for each member."""
    *others, last = map(repr, map(str, names))
    return PydanticKnownError("enum", {"expected": f"{', '.join(others)} or {last}"})


def _of_other_family(name: str, noun: str, family: SamplerImplementation) -> PydanticCustomError:
    return PydanticCustomError(
        "other_family",
        "'{name}' is one of the {noun} of {family}; with sampler_implementation '{family}' it would"
        " be right",
        {"name": name, "noun": noun, "family": str(family)},
    )
