"""From a scheduler's name to a Diffusers scheduler for one job.

A scheduler object holds the state of one image (its step index, its earlier predictions), so each
job gets a new one, built from the model's own scheduler config.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, cast

import diffusers
import torch

from lpw_sdxl.diffusion.quick_schedulers import LMSScheduler, UniPCScheduler
from lpw_sdxl.errors import ModelError
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SCHEDULERS, SchedulerName, find_scheduler


class Scheduler(Protocol):
    """The part of a Diffusers scheduler that denoising uses."""

    timesteps: torch.Tensor  # [unet_calls], float or int64, on the CPU
    init_noise_sigma: float | torch.Tensor

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Scale latents to what the UNet was trained to see at this timestep."""

    def step(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """Take one step from the predicted noise."""


_OURS = {"LMSDiscreteScheduler": LMSScheduler, "UniPCMultistepScheduler": UniPCScheduler}
"""Our classes in the place of Diffusers': they compute the same without waiting for the device."""


def scheduler_class(name: SchedulerName) -> Any:
    """Return the class of a scheduler: ours if there is one, else Diffusers'."""
    class_name = SCHEDULERS[name].class_name
    return _OURS.get(class_name) or getattr(diffusers, class_name)


def supports_zero_snr(name: SchedulerName) -> bool:
    """Return whether a scheduler can rescale its betas to zero terminal SNR."""
    return "rescale_betas_zero_snr" in _parameters(name)


def own_scheduler(config: Mapping[str, Any]) -> SchedulerName:
    """Return the name of the scheduler in a model's `scheduler_config.json`.

    Raises:
        ModelError: if it is none of those served.
    """
    name = find_scheduler(config["_class_name"])
    if name is None:
        raise ModelError(f"the model's own scheduler, {config['_class_name']}, is not served")
    return name


def own_schedule_type(config: Mapping[str, Any]) -> ScheduleType:
    """Return the schedule type in a model's `scheduler_config.json`.

    Raises:
        ModelError: if it is none of those served.
    """
    try:
        return ScheduleType(config["timestep_spacing"])
    except ValueError:
        raise ModelError(
            f"the model's own timestep spacing, {config['timestep_spacing']}, is not served"
        ) from None


def make_scheduler(
    name: SchedulerName,
    config: Mapping[str, Any],
    num_inference_steps: int,
    schedule_type: ScheduleType | None = None,
) -> Scheduler:
    """Build the scheduler of one job; `bind_step` gives it noise.

    Args:
        name: which one.
        config: the model's own scheduler config; it decides betas and prediction type.
        num_inference_steps: of the request.
        schedule_type: one that the scheduler takes; None for the model's own, or the scheduler's.
    """
    parameters, recipe = _parameters(name), SCHEDULERS[name]
    inherited = {key: value for key, value in config.items() if key in parameters}
    schedule = {} if schedule_type is None else recipe.schedules[schedule_type]
    scheduler: Any = scheduler_class(name)(**{**inherited, **recipe.overrides, **schedule})
    # Timesteps and sigmas stay on the CPU, where reading one never waits for the device.
    scheduler.set_timesteps(num_inference_steps, device="cpu")
    _drop_surplus_timesteps(scheduler, unet_calls(name, num_inference_steps))
    begin_at(scheduler, 0)
    return cast("Scheduler", scheduler)


def begin_at(scheduler: Any, index: int) -> None:
    """Set the timestep at which a scheduler begins.

    Args:
        scheduler: one that has taken no step.
        index: of the timestep; of a second-order scheduler an even one.
    """
    # DDIM counts no steps. The others would search for their first timestep.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)


def unet_calls(name: SchedulerName, num_inference_steps: int, strength: float = 1.0) -> int:
    """Count the UNet calls of a job; a second-order scheduler makes nearly two a step.

    Args:
        name: of the scheduler.
        num_inference_steps: of the request.
        strength: the share of the steps that is taken, 0 to 1, rounded down as in Diffusers.

    Returns:
        0 where the strength leaves no step.
    """
    steps = int(num_inference_steps * strength)
    return max(0, 2 * steps - 1) if SCHEDULERS[name].is_second_order else steps


def _parameters(name: SchedulerName) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(scheduler_class(name)).parameters


def _drop_surplus_timesteps(scheduler: Any, calls: int) -> None:
    """Drop the surplus timestep that Diffusers' "trailing" spacing makes at 61 steps and others.

    It comes from rounding and is -1, which DDIM takes for the last timestep.
    """
    surplus = len(scheduler.timesteps) - calls
    if not surplus:
        return
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = torch.cat([scheduler.sigmas[: -surplus - 1], scheduler.sigmas[-1:]])
    scheduler.timesteps = scheduler.timesteps[:-surplus]
