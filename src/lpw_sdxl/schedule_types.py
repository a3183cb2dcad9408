"""Schedule types by name: at which timesteps a scheduler calls the UNet.

It imports no torch. `scheduler_table` has which scheduler takes which type, and what a type changes
in the scheduler's config; a new type is a name here and an entry in the rows that take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from lpw_sdxl.spelling import Spellings


class ScheduleType(StrEnum):
    """Schedule types; these three are the values of Diffusers' `timestep_spacing`.

    Where they begin and end is in Lin et al., "Common Diffusion Noise Schedules and Sample Steps
    Are Flawed", 2023, table 2. In 4 steps Euler calls the UNet at 751, 501, 251, 1 with `leading`,
    at 999, 749, 499, 249 with `trailing`, and at 999, 666, 333, 0 with `linspace`.
    """

    LEADING = "leading"
    TRAILING = "trailing"
    LINSPACE = "linspace"


SCHEDULE_TYPE_ALIASES: Mapping[str, ScheduleType] = {
    "sgm_uniform": ScheduleType.TRAILING,  # as Diffusers' overview of schedulers translates it
}
"""Names of other programs that are no mere spelling of ours."""

_SPELLINGS = Spellings("schedule type", ScheduleType, SCHEDULE_TYPE_ALIASES)
find_schedule_type = _SPELLINGS.find
read_schedule_type = _SPELLINGS.read


def usual_schedule_type(prediction_type: str, *, zero_terminal_snr: bool) -> ScheduleType:
    """Return the schedule type of a model for which none is chosen.

    SDXL's own scheduler has `leading`. Zero terminal SNR needs sampling to begin at the last
    timestep, hence `trailing` (Lin et al., section 3.3), which v-prediction gets too.

    Args:
        prediction_type: Diffusers' name of what the UNet predicts.
        zero_terminal_snr: whether the noise schedule ends in pure noise.
    """
    is_plain = prediction_type == "epsilon" and not zero_terminal_snr
    return ScheduleType.LEADING if is_plain else ScheduleType.TRAILING
