"""Schedulers by name, in one table: their classes in Diffusers, other names, and their limits.

It imports no torch: `diffusion.schedulers` finds the classes. A new scheduler is a name and a row
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.spelling import Spellings

DISTILLED_STEPS = 50  # the timesteps that LCM and TCD models are distilled on
# With "leading" spacing a multistep solver's first timestep of 999 steps would be the 1000th.
_MULTISTEP_STEPS = 998
_NOISE_OR_VELOCITY = frozenset({"epsilon", "v_prediction"})
_KARRAS = {"use_karras_sigmas": True}
_PLAIN = {"use_karras_sigmas": False}

Schedules = Mapping[ScheduleType, Mapping[str, Any]]
"""What a schedule type changes in a scheduler's config, for each type that the scheduler takes."""

# DDIM steps down by 1000 // steps timesteps, which with "linspace" does not lead to the next one.
# In Diffusers noise is left in the latents, up to 1.1 in 4 steps and 0.2 in 20, even where
# predictions are exact.
_DDIM_SPACINGS: Schedules = {
    kind: {"timestep_spacing": kind.value} for kind in (ScheduleType.LEADING, ScheduleType.TRAILING)
}
_SPACINGS: Schedules = {
    **_DDIM_SPACINGS,
    ScheduleType.LINSPACE: {"timestep_spacing": ScheduleType.LINSPACE.value},
}
# LCM and TCD choose from the 50 timesteps that their models are distilled on. Of all 1000 they
# choose those of "trailing", in 4 steps 999, 749, 499, 249, on which DMD2 is trained.
_DISTILLED_SPACINGS: Schedules = {ScheduleType.TRAILING: {"original_inference_steps": 1000}}


class SchedulerName(StrEnum):
    """Schedulers by their usual names, which are AUTOMATIC1111's."""

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


@dataclass(frozen=True)
class SchedulerRecipe:
    """A Diffusers class, its differences from the model's own scheduler config, and its limits.

    Attributes:
        class_name: in Diffusers.
        overrides: of the model's config.
        is_second_order: whether a step calls the UNet twice; the last step calls it once.
        predictions: kinds of prediction that the model may have, by Diffusers' names.
        divides_by_alpha: whether predicted noise is divided by the signal's share, which is 0 at
            the first timestep of a model with zero terminal SNR; schedulers that don't divide stay
            just above that timestep.
        max_steps: more are refused, or lead to timesteps that no model was trained on.
        schedules: the schedule types that a request may name, and what each changes in the config.
        follows_model: whether the model's own schedule type decides where a request names none;
            otherwise the scheduler has timesteps of its own.
    """

    class_name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    is_second_order: bool = False
    predictions: frozenset[str] = frozenset({"epsilon", "v_prediction", "sample"})
    divides_by_alpha: bool = False
    max_steps: int = 999
    schedules: Schedules = field(default_factory=lambda: _SPACINGS)
    follows_model: bool = True


def _dpmpp(order: int, *, is_stochastic: bool, sigmas: Mapping[str, Any]) -> SchedulerRecipe:
    # With Karras' sigmas this class reads no spacing: they span all that the model was trained on.
    # The classes of `DPM++ SDE Karras` and `LMS Karras` put them between the spacing's two ends.
    has_own_timesteps = sigmas == _KARRAS
    return SchedulerRecipe(
        "DPMSolverMultistepScheduler",
        {
            "algorithm_type": "sde-dpmsolver++" if is_stochastic else "dpmsolver++",
            "solver_order": order,
            "solver_type": "midpoint",
            **sigmas,
        },
        max_steps=_MULTISTEP_STEPS,
        schedules={} if has_own_timesteps else _SPACINGS,
        follows_model=not has_own_timesteps,
    )


def _dpmpp_sde(sigmas: Mapping[str, Any]) -> SchedulerRecipe:
    return SchedulerRecipe(
        "DPMSolverSDEScheduler",
        sigmas,
        is_second_order=True,
        predictions=_NOISE_OR_VELOCITY,
    )


def _distilled(class_name: str) -> SchedulerRecipe:
    return SchedulerRecipe(
        class_name,
        {"clip_sample": False, "original_inference_steps": DISTILLED_STEPS},
        divides_by_alpha=True,
        max_steps=DISTILLED_STEPS,
        schedules=_DISTILLED_SPACINGS,
        follows_model=False,
    )


SCHEDULERS: Mapping[SchedulerName, SchedulerRecipe] = {
    SchedulerName.EULER: SchedulerRecipe("EulerDiscreteScheduler", _PLAIN),
    SchedulerName.EULER_ANCESTRAL: SchedulerRecipe(
        "EulerAncestralDiscreteScheduler", predictions=_NOISE_OR_VELOCITY
    ),
    SchedulerName.DPMPP_2M: _dpmpp(2, is_stochastic=False, sigmas=_PLAIN),
    SchedulerName.DPMPP_2M_KARRAS: _dpmpp(2, is_stochastic=False, sigmas=_KARRAS),
    SchedulerName.DPMPP_2M_SDE: _dpmpp(2, is_stochastic=True, sigmas=_PLAIN),
    SchedulerName.DPMPP_2M_SDE_KARRAS: _dpmpp(2, is_stochastic=True, sigmas=_KARRAS),
    SchedulerName.DPMPP_3M_SDE: _dpmpp(3, is_stochastic=True, sigmas=_PLAIN),
    SchedulerName.DPMPP_3M_SDE_KARRAS: _dpmpp(3, is_stochastic=True, sigmas=_KARRAS),
    SchedulerName.DPMPP_SDE: _dpmpp_sde(_PLAIN),
    SchedulerName.DPMPP_SDE_KARRAS: _dpmpp_sde(_KARRAS),
    # Diffusers clips DDIM's sample to [-1, 1] by default. SDXL's latents leave that range, and a
    # clip turns rounding at its edge into another picture.
    SchedulerName.DDIM: SchedulerRecipe(
        "DDIMScheduler",
        {"clip_sample": False, "set_alpha_to_one": False},
        divides_by_alpha=True,
        schedules=_DDIM_SPACINGS,
    ),
    SchedulerName.UNIPC: SchedulerRecipe(
        "UniPCMultistepScheduler", _PLAIN, max_steps=_MULTISTEP_STEPS
    ),
    SchedulerName.HEUN: SchedulerRecipe(
        "HeunDiscreteScheduler",
        {**_PLAIN, "clip_sample": False},
        is_second_order=True,
    ),
    SchedulerName.LMS: SchedulerRecipe("LMSDiscreteScheduler", _PLAIN),
    SchedulerName.LMS_KARRAS: SchedulerRecipe("LMSDiscreteScheduler", _KARRAS),
    SchedulerName.LCM: _distilled("LCMScheduler"),
    SchedulerName.TCD: _distilled("TCDScheduler"),
}

# The name of a class that several rows have stands for the first of them.
_BY_CLASS = {recipe.class_name: name for name, recipe in reversed([*SCHEDULERS.items()])}
SCHEDULER_ALIASES: Mapping[str, SchedulerName] = {
    "euler_ancestral": SchedulerName.EULER_ANCESTRAL,  # ComfyUI's
    # ComfyUI's for the same formulas with noise that the GPU draws; ours is always the CPU's.
    "dpmpp_sde_gpu": SchedulerName.DPMPP_SDE,
    "dpmpp_sde_gpu_karras": SchedulerName.DPMPP_SDE_KARRAS,
    "dpmpp_2m_sde_gpu": SchedulerName.DPMPP_2M_SDE,
    "dpmpp_2m_sde_gpu_karras": SchedulerName.DPMPP_2M_SDE_KARRAS,
    "dpmpp_3m_sde_gpu": SchedulerName.DPMPP_3M_SDE,
    "dpmpp_3m_sde_gpu_karras": SchedulerName.DPMPP_3M_SDE_KARRAS,
    # A1111's short names of the samplers that were named for Karras, until its version 1.8.
    "k_dpmpp_2m_ka": SchedulerName.DPMPP_2M_KARRAS,
    "k_dpmpp_sde_ka": SchedulerName.DPMPP_SDE_KARRAS,
    "k_dpmpp_2m_sde_ka": SchedulerName.DPMPP_2M_SDE_KARRAS,
    "k_dpmpp_3m_sde_ka": SchedulerName.DPMPP_3M_SDE_KARRAS,
    "k_lms_ka": SchedulerName.LMS_KARRAS,
    **dict(reversed(_BY_CLASS.items())),
}
"""Names of other programs that are no mere spelling of ours."""

_SPELLINGS = Spellings("scheduler", SchedulerName, SCHEDULER_ALIASES)
find_scheduler = _SPELLINGS.find
read_scheduler = _SPELLINGS.read
