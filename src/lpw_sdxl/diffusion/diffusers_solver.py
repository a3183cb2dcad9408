"""Diffusers' schedulers as solvers: pictures equal those of Diffusers' own pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.noise import StepResult, add_noise, bind_step, copy_to_device
from lpw_sdxl.diffusion.schedulers import Scheduler, begin_at, make_scheduler, unet_calls
from lpw_sdxl.diffusion.solver import AskForNoise, NoiseSupply
from lpw_sdxl.diffusion.start import Draws, MaskReduction, Start
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize


@dataclass(frozen=True)
class DiffusersPlan:
    """A scheduler of Diffusers, decided for one image; see `SolverPlan`.

    Attributes:
        scheduler: its name.
        config: the model's own scheduler config.
        num_inference_steps: of the request.
        size: pixels.
        seed: of all that is random.
        schedule_type: one that the scheduler takes; None for its own.
        strength: the share of the steps that a picture is given; None for a text alone.
    """

    scheduler: SchedulerName
    config: Mapping[str, Any]
    num_inference_steps: int
    size: ImageSize
    seed: int
    schedule_type: ScheduleType | None = None
    strength: float | None = None

    mask_reduction = MaskReduction.TOP_LEFT

    @property
    def calls(self) -> int:
        """Count the UNet calls."""
        strength = 1.0 if self.strength is None else self.strength
        return unet_calls(self.scheduler, self.num_inference_steps, strength)

    @property
    def steps(self) -> int:
        """Count the steps that are taken: a share of them where there is a picture."""
        strength = 1.0 if self.strength is None else self.strength
        return int(self.num_inference_steps * strength)

    @property
    def enters_late(self) -> bool:
        """Return whether a picture's strength leaves out the first timesteps."""
        return self.strength is not None and self.strength < 1

    def prompt_step(self, call: int) -> int:
        """Return the step of a call, counted from 1."""
        return call + 1

    def open_noise(self, device: torch.device, ask: AskForNoise) -> NoiseSupply | None:  # noqa: ARG002 - as of the other family
        """Return None: the schedulers draw their noise within their steps."""
        return None

    def begin(
        self,
        start: Start,
        device: torch.device,
        noise: NoiseSupply | None = None,  # noqa: ARG002 - as of the other family
    ) -> DiffusersSolver:
        """Make a scheduler, and draw a run's noise."""
        scheduler = make_scheduler(
            self.scheduler, self.config, self.num_inference_steps, self.schedule_type
        )
        index = len(scheduler.timesteps) - self.calls
        begin_at(scheduler, index)
        return DiffusersSolver(
            SchedulerEntry(scheduler, index), start, self.size, self.seed, device
        )


@dataclass(frozen=True)
class SchedulerEntry:
    """The timestep at which a job enters its scheduler.

    Attributes:
        scheduler: of the job; it begins at this timestep.
        index: of the timestep; 0 is that of noise alone.
    """

    scheduler: Scheduler
    index: int

    @property
    def is_first(self) -> bool:
        """Return whether all timesteps are ahead."""
        return self.index == 0

    def scale(self, noise: torch.Tensor) -> torch.Tensor:
        """Make the first latents of noise alone."""
        return noise * self.scheduler.init_noise_sigma

    def add(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Add as much noise to a picture's latents as this timestep has."""
        return add_noise(self.scheduler, latents, noise, self.scheduler.timesteps[self.index])


class DiffusersSolver:
    """One image's run with its own scheduler; see `Solver`.

    Args:
        entry: its scheduler, and where it begins.
        start: what is denoised.
        size: pixels.
        seed: of all that is random.
        device: where it runs.
    """

    def __init__(
        self,
        entry: SchedulerEntry,
        start: Start,
        size: ImageSize,
        seed: int,
        device: torch.device,
    ) -> None:
        self._scheduler, self._index = entry.scheduler, entry.index
        generator = seeded_generator(seed)

        def draw() -> torch.Tensor:
            return copy_to_device(draw_noise(size, generator), device)

        beginning = start.begin(entry, Draws(draw, draw))
        self._kept, self.shown = beginning.kept, beginning.shown
        self.latents = self.denoised = beginning.latents
        self._take_step = bind_step(self._scheduler, generator, self.latents)

    @property
    def timestep(self) -> torch.Tensor:
        """Return the timestep of the next UNet call."""
        return self._scheduler.timesteps[self._index]

    def model_input(self) -> torch.Tensor:
        """Scale the latents as the scheduler does."""
        return self._scheduler.scale_model_input(self.latents, self.timestep)

    def advance(self, prediction: torch.Tensor) -> None:
        """Take the scheduler's step; where a picture is kept, put it back under its noise."""
        stepped = self._take_step(prediction, self.timestep, self.latents)
        self._index += 1
        self.latents, self.denoised = self._put_back(stepped)

    def _put_back(self, stepped: StepResult) -> StepResult:
        kept = self._kept
        if kept is None:
            return stepped
        picture = kept.latents
        if self._index < len(self._scheduler.timesteps):
            picture = add_noise(self._scheduler, picture, kept.noise, self.timestep)
        return StepResult(kept.put_back(stepped.latents, picture), kept.put_back(stepped.denoised))
