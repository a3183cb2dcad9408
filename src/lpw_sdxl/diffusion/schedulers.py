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
    DPMSolverSDEScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)

from lpw_sdxl.diffusion.solvers import LMSScheduler, UniPCScheduler
from lpw_sdxl.errors import ModelError
from lpw_sdxl.schema import SchedulerName, find_scheduler


class Scheduler(Protocol):
    """What a denoising run asks of a Diffusers scheduler."""

    timesteps: torch.Tensor  # [unet_calls], float or int64, on the CPU
    init_noise_sigma: float | torch.Tensor

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Scale latents to what the UNet was trained to see at this timestep."""

    def step(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """Take one step from the predicted noise."""


@dataclass(frozen=True)
class SchedulerRecipe:
    """A Diffusers class, what differs from the model's own scheduler config, and what it can't do.

    Attributes:
        scheduler_class: Diffusers', or ours after it.
        overrides: of the model's config.
        is_second_order: calls the UNet twice a step, but once in the last.
        predictions: what the model may predict, by Diffusers' names.
        divides_by_alpha: whether predicted noise is divided by the signal's share, which is 0 at
            the first timestep of a model with zero terminal SNR; the others stay just above it.
        max_steps: more are refused, or lead to timesteps that no model was trained on.
    """

    scheduler_class: Any
    overrides: Mapping[str, Any] = field(default_factory=dict)
    is_second_order: bool = False
    predictions: frozenset[str] = frozenset({"epsilon", "v_prediction", "sample"})
    divides_by_alpha: bool = False
    max_steps: int = 999

    @property
    def knows_zero_snr(self) -> bool:
        """Tell whether the class can rescale its betas to zero terminal SNR."""
        return "rescale_betas_zero_snr" in self.parameters

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """List the parameters of the class."""
        return inspect.signature(self.scheduler_class).parameters


_NOISE_OR_VELOCITY = frozenset({"epsilon", "v_prediction"})
_KARRAS = {"use_karras_sigmas": True}
_PLAIN = {"use_karras_sigmas": False}
DISTILLED_STEPS = 50  # the timesteps that LCM and TCD models are distilled on
# With "leading" spacing a multistep solver's first timestep of 999 steps would be the 1000th.
_MULTISTEP_STEPS = 998


def _dpmpp(order: int, *, is_stochastic: bool, sigmas: Mapping[str, Any]) -> SchedulerRecipe:
    return SchedulerRecipe(
        DPMSolverMultistepScheduler,
        {
            "algorithm_type": "sde-dpmsolver++" if is_stochastic else "dpmsolver++",
            "solver_order": order,
            "solver_type": "midpoint",
            **sigmas,
        },
        max_steps=_MULTISTEP_STEPS,
    )


def _dpmpp_sde(sigmas: Mapping[str, Any]) -> SchedulerRecipe:
    return SchedulerRecipe(
        DPMSolverSDEScheduler, sigmas, is_second_order=True, predictions=_NOISE_OR_VELOCITY
    )


def _distilled(scheduler_class: Any) -> SchedulerRecipe:
    return SchedulerRecipe(
        scheduler_class,
        {"clip_sample": False, "original_inference_steps": DISTILLED_STEPS},
        divides_by_alpha=True,
        max_steps=DISTILLED_STEPS,
    )


SCHEDULERS: Mapping[SchedulerName, SchedulerRecipe] = {
    SchedulerName.EULER: SchedulerRecipe(EulerDiscreteScheduler, _PLAIN),
    SchedulerName.EULER_ANCESTRAL: SchedulerRecipe(
        EulerAncestralDiscreteScheduler, predictions=_NOISE_OR_VELOCITY
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
        DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}, divides_by_alpha=True
    ),
    SchedulerName.UNIPC: SchedulerRecipe(UniPCScheduler, _PLAIN, max_steps=_MULTISTEP_STEPS),
    SchedulerName.HEUN: SchedulerRecipe(
        HeunDiscreteScheduler, {**_PLAIN, "clip_sample": False}, is_second_order=True
    ),
    SchedulerName.LMS: SchedulerRecipe(LMSScheduler, _PLAIN),
    SchedulerName.LMS_KARRAS: SchedulerRecipe(LMSScheduler, _KARRAS),
    SchedulerName.LCM: _distilled(LCMScheduler),
    SchedulerName.TCD: _distilled(TCDScheduler),
}


def own_scheduler(config: Mapping[str, Any]) -> SchedulerName:
    """Name the scheduler that a model's `scheduler_config.json` asks for.

    Raises:
        ModelError: if it is none of those served.
    """
    name = find_scheduler(config["_class_name"])
    if name is None:
        raise ModelError(f"the model's own scheduler, {config['_class_name']}, is not served")
    return name


def make_scheduler(
    name: SchedulerName, config: Mapping[str, Any], num_inference_steps: int
) -> Scheduler:
    """Build the scheduler of one job, in a state of its own; `bind_step` gives it noise.

    Args:
        name: which one.
        config: the model's own scheduler config; it decides betas, prediction type and spacing.
        num_inference_steps: denoising steps.
    """
    recipe = SCHEDULERS[name]
    inherited = {key: value for key, value in config.items() if key in recipe.parameters}
    scheduler: Any = recipe.scheduler_class(**{**inherited, **recipe.overrides})
    # Timesteps and sigmas stay on the CPU: reading one then never waits for the device.
    scheduler.set_timesteps(num_inference_steps, device="cpu")
    _drop_surplus_timesteps(scheduler, unet_calls(name, num_inference_steps))
    # DDIM counts no steps. The others would look their first timestep up.
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    made: Scheduler = scheduler
    return made


def unet_calls(name: SchedulerName, num_inference_steps: int) -> int:
    """Count the UNet calls of a job: what it costs, beside its size and guidance."""
    if SCHEDULERS[name].is_second_order:
        return 2 * num_inference_steps - 1
    return num_inference_steps


def _drop_surplus_timesteps(scheduler: Any, calls: int) -> None:
    """Mend Diffusers' "trailing" spacing, which rounds to a step too many at 61 steps and others.

    The surplus step would be at timestep -1, which DDIM takes for the last one.
    """
    surplus = len(scheduler.timesteps) - calls
    if not surplus:
        return
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = torch.cat([scheduler.sigmas[: -surplus - 1], scheduler.sigmas[-1:]])
    scheduler.timesteps = scheduler.timesteps[:-surplus]
