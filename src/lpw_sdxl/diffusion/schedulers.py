"""Schedulers by name: one table from a SchedulerName to a Diffusers scheduler of one job's own.

A scheduler object holds the state of one image (its step index, its earlier predictions), so each
job gets a new one, built from the model's own scheduler config.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from lpw_sdxl.schema import SchedulerName


class Scheduler(Protocol):
    """What a denoising run asks of a Diffusers scheduler."""

    timesteps: torch.Tensor  # [steps], float32 or int64, on the CPU
    init_noise_sigma: float | torch.Tensor

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Scale latents to what the UNet was trained to see at this timestep."""

    def step(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """Take one step from the predicted noise."""


@dataclass(frozen=True)
class SchedulerRecipe:
    """A Diffusers class and what differs from the model's own scheduler config."""

    scheduler_class: type
    overrides: Mapping[str, Any] = field(default_factory=dict)


_DPMPP_2M = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}

SCHEDULERS: Mapping[SchedulerName, SchedulerRecipe] = {
    SchedulerName.EULER: SchedulerRecipe(EulerDiscreteScheduler, {"use_karras_sigmas": False}),
    SchedulerName.EULER_ANCESTRAL: SchedulerRecipe(EulerAncestralDiscreteScheduler),
    SchedulerName.DPMPP_2M: SchedulerRecipe(
        DPMSolverMultistepScheduler, {**_DPMPP_2M, "use_karras_sigmas": False}
    ),
    SchedulerName.DPMPP_2M_KARRAS: SchedulerRecipe(
        DPMSolverMultistepScheduler, {**_DPMPP_2M, "use_karras_sigmas": True}
    ),
    # Diffusers clips DDIM's sample to [-1, 1] by default. SDXL's latents leave that range, and a
    # clip turns rounding at its edge into another picture.
    SchedulerName.DDIM: SchedulerRecipe(
        DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}
    ),
}

OWN_SCHEDULERS: Mapping[str, SchedulerName] = {
    "EulerDiscreteScheduler": SchedulerName.EULER,
    "EulerAncestralDiscreteScheduler": SchedulerName.EULER_ANCESTRAL,
    "DPMSolverMultistepScheduler": SchedulerName.DPMPP_2M,
    "DDIMScheduler": SchedulerName.DDIM,
}


def own_scheduler(config: Mapping[str, Any]) -> SchedulerName:
    """Name the scheduler that a model's `scheduler_config.json` asks for."""
    return OWN_SCHEDULERS[config["_class_name"]]


def make_scheduler(
    name: SchedulerName, config: Mapping[str, Any], num_inference_steps: int
) -> Scheduler:
    """Build the scheduler of one job.

    Args:
        name: which one.
        config: the model's own scheduler config; it decides betas, prediction type and spacing.
        num_inference_steps: denoising steps.
    """
    recipe = SCHEDULERS[name]
    accepted = inspect.signature(recipe.scheduler_class).parameters
    inherited = {key: value for key, value in config.items() if key in accepted}
    scheduler = recipe.scheduler_class(**{**inherited, **recipe.overrides})
    # Timesteps and sigmas stay on the CPU: reading one then never waits for the device.
    scheduler.set_timesteps(num_inference_steps, device="cpu")
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


def unet_calls(name: SchedulerName, num_inference_steps: int) -> int:
    """Count the UNet calls of one image."""
    del name
    return num_inference_steps
