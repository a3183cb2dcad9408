"""The sampler of one image, as it was decided."""

from __future__ import annotations

from typing import NamedTuple

from lpw_sdxl.diffusion.solver import SolverPlan
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import SigmaScheduleType
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName

DRAWN_SEED_BITS = 32  # a seed that JavaScript and every A1111 tool can hold


class SamplingChoice(NamedTuple):
    """The sampler of an image, decided.

    Attributes:
        plan: for the engine.
        scheduler: or sampler, by its name.
        schedule_type: None where the sampler has timesteps of its own.
        variation_seed: drawn or requested; None where there is no variation.
    """

    plan: SolverPlan
    scheduler: SchedulerName | SamplerName
    schedule_type: ScheduleType | SigmaScheduleType | None
    variation_seed: int | None = None
