"""The course of one image: where its sampler goes, and how it starts there.

A course holds no state: each `begin` is a walk of its own. It knows nothing of UNets or jobs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from lpw_sdxl.sampler_table import SAMPLERS, SamplerName, SamplerNoise
from lpw_sdxl.sampling.brownian import BrownianNoise
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.noise_generators import ImageNoise
from lpw_sdxl.sampling.samplers import FORMULAS
from lpw_sdxl.sampling.schedules import make_sigmas
from lpw_sdxl.sampling.timestep_samplers import TimestepSchedule, make_timesteps
from lpw_sdxl.sampling.unipc import divide_timesteps
from lpw_sdxl.sampling.walk import Noise, Walk
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType, TimestepRounding


class Course(Protocol):
    """Where a sampler goes."""

    @property
    def sampler(self) -> SamplerName:
        """Return the sampler's name."""

    @property
    def steps_left(self) -> int:
        """Count the steps from its start to its end."""

    def late(self, back: int) -> Course:
        """Return the part of the course that is left for a picture.

        Args:
            back: how many steps it goes back from the end; see `steps_back` and `steps_for`.
        """

    def start(self, noise: torch.Tensor, picture: torch.Tensor | None = None) -> torch.Tensor:
        """Make the first latents, from noise alone or from a picture's latents under noise."""

    def begin(self, latents: torch.Tensor, noise: Noise, eta: float | None = None) -> Walk:
        """Begin a walk.

        Args:
            latents: of `start`.
            noise: of the sampler's steps; a sampler that adds none does not call it.
            eta: share of the noise; None for the sampler's own. A sampler without eta ignores it.
        """

    def noise(self, source: NoiseSource, seed: int, draws: ImageNoise) -> Noise:
        """Choose the noise that the sampler adds: an image's draws, or a Brownian path.

        Args:
            source: of the path's numbers.
            seed: of the path.
            draws: of the image.
        """


def make_course(
    sampler: SamplerName, schedule_type: SigmaScheduleType, steps: int, model: ModelSigmas
) -> Course:
    """Compute the course of an image.

    Args:
        sampler: its name.
        schedule_type: ignored by samplers that go by timesteps of their own, as in A1111.
        steps: 1 to 1000.
        model: what the model was trained on.
    """
    recipe = SAMPLERS[sampler]
    if recipe.walks_timesteps:
        return TimestepCourse(sampler, model, steps)
    model = model.distilled() if recipe.knows_50_timesteps else model
    return SigmaCourse(
        sampler, model, steps, make_sigmas(schedule_type, steps, model, sampler), first=0
    )


@dataclass(frozen=True)
class SigmaCourse:
    """The course of a sampler that goes by sigmas.

    Attributes:
        sampler: its name.
        model: what the model was trained on.
        steps: that were asked for; a schedule may have more.
        sigmas: of the whole schedule, descending, float32 on the CPU, `[n + 1]`.
        first: index of the sigma that it starts at.
    """

    sampler: SamplerName
    model: ModelSigmas
    steps: int
    sigmas: torch.Tensor
    first: int

    @property
    def steps_left(self) -> int:
        """Count the steps from sigma to sigma."""
        return len(self.sigmas) - 1 - self.first

    def late(self, back: int) -> SigmaCourse:
        """Return the last `back + 1` steps."""
        return dataclasses.replace(self, first=self.steps - back - 1)

    def start(self, noise: torch.Tensor, picture: torch.Tensor | None = None) -> torch.Tensor:
        """Scale noise to the first sigma, and add it to a picture's latents."""
        scaled = noise * self.sigmas[self.first]
        return scaled if picture is None else picture + scaled

    def begin(self, latents: torch.Tensor, noise: Noise, eta: float | None = None) -> Walk:
        """Begin a walk from the first sigma to the last."""
        sigmas, options = self.sigmas[self.first :], _options(self.sampler, noise, eta)
        if SAMPLERS[self.sampler].knows_50_timesteps:
            options["timesteps"] = self.model.timestep_at(sigmas[:-1], TimestepRounding.NEAREST)
        return FORMULAS[self.sampler](latents, sigmas, **options)

    def noise(self, source: NoiseSource, seed: int, draws: ImageNoise) -> Noise:
        """Choose the draws, or a path over the whole schedule."""
        if SAMPLERS[self.sampler].noise is not SamplerNoise.BROWNIAN:
            return draws
        return BrownianNoise(source, seed, draws.shape, self.sigmas)


@dataclass(frozen=True)
class TimestepCourse:
    """The course of a sampler that goes by timesteps of its own.

    Attributes:
        sampler: its name.
        model: what the model was trained on.
        steps: that were asked for.
        back: t of a picture: its noise is that of the timestep at index t, counted from the lowest,
            but the way begins at the one below, as in A1111. None for the whole way.
    """

    sampler: SamplerName
    model: ModelSigmas
    steps: int
    back: int | None = None

    @property
    def schedule(self) -> TimestepSchedule:
        """Return the timesteps and their alphas; UniPC divides the way to timestep 0 anew."""
        timesteps = make_timesteps(self.steps)
        if self.back is not None:
            timesteps = timesteps[-max(self.back, 1) :]
        if self.sampler is SamplerName.UNIPC:
            timesteps = divide_timesteps(timesteps, starts_late=self.back is not None)
        return TimestepSchedule(timesteps, self.model.alpha_at(timesteps))

    @property
    def steps_left(self) -> int:
        """Count the steps from timestep to timestep."""
        return max(0, len(self.schedule.timesteps) - 1)

    def late(self, back: int) -> TimestepCourse:
        """Return the way over the lowest timesteps: UniPC takes `back` steps, others one less."""
        return dataclasses.replace(self, back=back)

    def start(self, noise: torch.Tensor, picture: torch.Tensor | None = None) -> torch.Tensor:
        """Return the noise itself, or mix it with a picture's latents for the timestep at t."""
        if picture is None or self.back is None:
            return noise
        alpha = self.model.alpha_at(make_timesteps(self.steps)[-1 - self.back])
        return alpha.sqrt() * picture + (1 - alpha).sqrt() * noise

    def begin(self, latents: torch.Tensor, noise: Noise, eta: float | None = None) -> Walk:
        """Begin a walk from the first timestep to the last."""
        options = _options(self.sampler, noise, eta)
        return FORMULAS[self.sampler](latents, self.schedule, **options)

    def noise(self, source: NoiseSource, seed: int, draws: ImageNoise) -> Noise:  # noqa: ARG002 - as of the other courses
        """Choose the draws."""
        return draws


_LARGEST_STRENGTH = 0.999  # A1111's: a picture is never noised from the very first sigma


def steps_back(strength: float, steps: int) -> int:
    """Count the steps by which A1111 goes back for a picture.

    Args:
        strength: of denoising, 0 to 1.
        steps: of the whole course.
    """
    return int(min(strength, _LARGEST_STRENGTH) * steps)


def steps_for(strength: float, taken: int) -> int:
    """Count the steps of the whole course of which so many are to be taken, as in a second pass.

    Args:
        strength: of denoising, above 0.
        taken: of the steps; the course goes back by one less.
    """
    return int(taken / min(strength, _LARGEST_STRENGTH))


def _options(sampler: SamplerName, noise: Noise, eta: float | None) -> dict[str, Any]:
    """List the arguments that a sampler takes beside latents and where it goes."""
    recipe, options = SAMPLERS[sampler], dict[str, Any]()
    if recipe.noise is not SamplerNoise.NONE:
        options["noise"] = noise
    if recipe.eta is not None:
        options["eta"] = recipe.eta if eta is None else eta
    return options
