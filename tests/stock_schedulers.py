"""Diffusers' own schedulers by our names, written down apart from our table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName

KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
STOCK_SCHEDULERS: Mapping[SchedulerName, tuple[Any, Mapping[str, Any]]] = {
    SchedulerName.EULER: (EulerDiscreteScheduler, {}),
    SchedulerName.EULER_ANCESTRAL: (EulerAncestralDiscreteScheduler, {}),
    SchedulerName.DPMPP_2M: (DPMSolverMultistepScheduler, {}),
    SchedulerName.DPMPP_2M_KARRAS: (DPMSolverMultistepScheduler, KARRAS),
    SchedulerName.DPMPP_2M_SDE: (DPMSolverMultistepScheduler, SDE),
    SchedulerName.DPMPP_2M_SDE_KARRAS: (DPMSolverMultistepScheduler, SDE | KARRAS),
    SchedulerName.DPMPP_3M_SDE: (DPMSolverMultistepScheduler, SDE | {"solver_order": 3}),
    SchedulerName.DPMPP_3M_SDE_KARRAS: (
        DPMSolverMultistepScheduler,
        SDE | KARRAS | {"solver_order": 3},
    ),
    SchedulerName.DPMPP_SDE: (DPMSolverSDEScheduler, {}),
    SchedulerName.DPMPP_SDE_KARRAS: (DPMSolverSDEScheduler, KARRAS),
    SchedulerName.DDIM: (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    SchedulerName.UNIPC: (UniPCMultistepScheduler, {}),
    SchedulerName.HEUN: (HeunDiscreteScheduler, {}),
    SchedulerName.LMS: (LMSDiscreteScheduler, {}),
    SchedulerName.LMS_KARRAS: (LMSDiscreteScheduler, KARRAS),
    SchedulerName.LCM: (LCMScheduler, {}),
    SchedulerName.TCD: (TCDScheduler, {}),
}


# The types that each scheduler takes; what Diffusers itself draws with the others is tested too.
OWN_TIMESTEPS = frozenset(
    {
        SchedulerName.DPMPP_2M_KARRAS,
        SchedulerName.DPMPP_2M_SDE_KARRAS,
        SchedulerName.DPMPP_3M_SDE_KARRAS,
        SchedulerName.LCM,
        SchedulerName.TCD,
    }
)
DISTILLED = frozenset({SchedulerName.LCM, SchedulerName.TCD})


def takes(name: SchedulerName, schedule_type: ScheduleType) -> bool:
    """Return whether a scheduler takes a schedule type."""
    if name in DISTILLED:
        return schedule_type is ScheduleType.TRAILING
    if (name, schedule_type) == (SchedulerName.DDIM, ScheduleType.LINSPACE):
        return False
    return name not in OWN_TIMESTEPS


TAKEN = [(name, kind) for name in SchedulerName for kind in ScheduleType if takes(name, kind)]
NOT_TAKEN = [
    (name, kind) for name in SchedulerName for kind in ScheduleType if not takes(name, kind)
]


def stock_scheduler(
    name: SchedulerName,
    config: Mapping[str, Any],
    seed: int,
    schedule_type: ScheduleType | None = None,
) -> Any:
    """Diffusers' scheduler for a model; DPM++ SDE takes its seed here, the others a generator."""
    scheduler_class, overrides = STOCK_SCHEDULERS[name]
    seeded = {"noise_sampler_seed": seed} if scheduler_class is DPMSolverSDEScheduler else {}
    schedule: dict[str, Any] = {}
    if schedule_type is not None:
        schedule = {"timestep_spacing": str(schedule_type)}
        if name in DISTILLED:
            schedule = {"original_inference_steps": 1000}
    return scheduler_class.from_config(dict(config), **overrides, **seeded, **schedule)
