"""Names of schedulers: ours, and the spellings that lead to them; nothing of what they compute."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import StrEnum

from pydantic_core import PydanticCustomError


class SchedulerName(StrEnum):
    """Schedulers by the names that people know them by, which are AUTOMATIC1111's."""

    EULER = "Euler"
    EULER_ANCESTRAL = "Euler a"
    DPMPP_2M = "DPM++ 2M"
    DPMPP_2M_KARRAS = "DPM++ 2M Karras"
    DPMPP_2M_SDE = "DPM++ 2M SDE"
    DPMPP_2M_SDE_KARRAS = "DPM++ 2M SDE Karras"
    DPMPP_3M_SDE = "DPM++ 3M SDE"
    DPMPP_3M_SDE_KARRAS = "DPM++ 3M SDE Karras"
    DPMPP_SDE = "DPM++ SDE"
    DPMPP_SDE_KARRAS = "DPM++ SDE Karras"
    DDIM = "DDIM"
    UNIPC = "UniPC"
    HEUN = "Heun"
    LMS = "LMS"
    LMS_KARRAS = "LMS Karras"
    LCM = "LCM"
    TCD = "TCD"


SCHEDULER_ALIASES: Mapping[str, SchedulerName] = {
    "euler_ancestral": SchedulerName.EULER_ANCESTRAL,
    "EulerDiscreteScheduler": SchedulerName.EULER,
    "EulerAncestralDiscreteScheduler": SchedulerName.EULER_ANCESTRAL,
    "DPMSolverMultistepScheduler": SchedulerName.DPMPP_2M,
    "DPMSolverSDEScheduler": SchedulerName.DPMPP_SDE,
    "DDIMScheduler": SchedulerName.DDIM,
    "UniPCMultistepScheduler": SchedulerName.UNIPC,
    "HeunDiscreteScheduler": SchedulerName.HEUN,
    "LMSDiscreteScheduler": SchedulerName.LMS,
    "LCMScheduler": SchedulerName.LCM,
    "TCDScheduler": SchedulerName.TCD,
}
"""Names that spelling alone does not lead to one of ours: ComfyUI's, and Diffusers' classes."""

LONGEST_SCHEDULER_NAME = 64  # characters; longer is no name and is not compared with one


def find_scheduler(text: str) -> SchedulerName | None:
    """Find a scheduler by a name in anybody's spelling, or None.

    Case, blanks, hyphens, underscores, `pp` for `++` and a leading `k_` don't matter, so that
    `dpmpp_2m_sde`, `uni_pc` and `k_euler_a` are known without being listed.
    """
    return _SCHEDULERS_BY_SPELLING.get(_spelling(text))


def read_scheduler(value: object) -> object:
    """Turn a scheduler's name in any spelling into ours; leave what is no text to pydantic.

    Raises:
        PydanticCustomError: there is no such scheduler; near and known names are told.
    """
    if not isinstance(value, str):
        return value
    scheduler = find_scheduler(value)
    if scheduler is None:
        near = difflib.get_close_matches(_spelling(value), _SCHEDULERS_BY_SPELLING, n=1)
        hint = f"did you mean '{_SCHEDULERS_BY_SPELLING[near[0]]}'? " if near else ""
        known = ", ".join(f"'{name}'" for name in SchedulerName)
        raise PydanticCustomError(
            "unknown_scheduler",
            "not a scheduler; {hint}known are {known}",
            {"hint": hint, "known": known},
        )
    return scheduler


def _spelling(name: str) -> str:
    """Reduce a name to what all its spellings share."""
    if len(name) > LONGEST_SCHEDULER_NAME:
        return ""
    lowered = name.casefold().removeprefix("k_").replace("++", "pp")
    return "".join(lowered.replace("_", " ").replace("-", " ").split())


_SCHEDULERS_BY_SPELLING: Mapping[str, SchedulerName] = {
    _spelling(name): scheduler
    for name, scheduler in (
        *SCHEDULER_ALIASES.items(),
        *((name.value, name) for name in SchedulerName),
    )
}
