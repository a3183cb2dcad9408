"""The rules by which a scheduler can sample a model in so many steps; all else is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lpw_sdxl.diffusion.schedulers import own_schedule_type, supports_zero_snr
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SCHEDULERS, SchedulerName


def supported_schedulers(config: Mapping[str, Any]) -> list[SchedulerName]:
    """List the schedulers that can sample a model, by its scheduler config."""
    return [name for name in SchedulerName if _find_obstacle(name, config) is None]


def check_scheduler(
    name: SchedulerName, config: Mapping[str, Any], num_inference_steps: int
) -> None:
    """Refuse a scheduler that can't sample the model, or not in so many steps.

    Args:
        name: which one.
        config: the model's own scheduler config.
        num_inference_steps: of the request.

    Raises:
        InvalidRequestError: naming `scheduler` or `num_inference_steps`, and what would be right.
    """
    if obstacle := _find_obstacle(name, config):
        able = ", ".join(supported_schedulers(config))
        raise InvalidRequestError(
            f"scheduler {name} can't sample this model, {obstacle}; these can: {able}",
            field="scheduler",
        )
    if num_inference_steps > (most := SCHEDULERS[name].max_steps):
        raise InvalidRequestError(
            f"num_inference_steps is {num_inference_steps}; scheduler {name} takes at most {most}",
            field="num_inference_steps",
        )


def choose_schedule_type(
    name: SchedulerName, requested: ScheduleType | None, config: Mapping[str, Any]
) -> ScheduleType | None:
    """Decide the schedule type of a scheduler.

    Args:
        name: the scheduler.
        requested: of the request; None leaves it to the model.
        config: the model's own scheduler config.

    Returns:
        One that the scheduler takes; None where it has timesteps of its own.

    Raises:
        InvalidRequestError: the scheduler does not take it; naming `schedule_type` and what would
            be right.
    """
    recipe = SCHEDULERS[name]
    if requested is None and not recipe.follows_model:
        return None
    chosen = requested or own_schedule_type(config)
    if chosen in recipe.schedules:
        return chosen
    right = " or ".join([*([] if recipe.follows_model else ["null"]), *recipe.schedules])
    origin = ", the model's own" if requested is None else ""
    reason = "" if recipe.follows_model else ", which has timesteps of its own"
    raise InvalidRequestError(
        f"schedule_type is {chosen}{origin}; with scheduler {name}{reason}, {right} would be right",
        field="schedule_type",
    )


def _find_obstacle(name: SchedulerName, config: Mapping[str, Any]) -> str | None:
    """Describe the property of a model that rules a scheduler out; None if there is none."""
    recipe = SCHEDULERS[name]
    prediction = config["prediction_type"]
    has_zero_snr = config.get("rescale_betas_zero_snr", False)
    if prediction not in recipe.predictions:
        return f"which predicts {prediction}"
    if has_zero_snr and not supports_zero_snr(name):
        return "which has zero terminal SNR"
    if has_zero_snr and recipe.divides_by_alpha and prediction == "epsilon":
        return "which predicts epsilon with zero terminal SNR"
    return None
