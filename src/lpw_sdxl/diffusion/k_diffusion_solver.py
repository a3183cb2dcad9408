"""K-diffusion's samplers as solvers: pictures equal those of AUTOMATIC1111 and Forge.

`sampling` has the formulas; here are the UNet's side of them, and an image's noise on its device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch

from lpw_sdxl.diffusion.latents import draw_noise, latents_shape, seeded_generator
from lpw_sdxl.diffusion.noise import copy_to_device, pin_for
from lpw_sdxl.diffusion.solver import AskForNoise, NoiseSupply
from lpw_sdxl.diffusion.start import Draws, MaskReduction, Start
from lpw_sdxl.sampler_table import SAMPLERS
from lpw_sdxl.sampling.course import Course
from lpw_sdxl.sampling.noise_ahead import Draw, NoiseAhead
from lpw_sdxl.sampling.noise_generators import ImageNoise, Variation
from lpw_sdxl.sampling.prediction import denoise, scale_input
from lpw_sdxl.sampling.rehearsal import Rehearsal
from lpw_sdxl.sampling.walk import Evaluation, Sampling
from lpw_sdxl.sampling_options import NoiseSource
from lpw_sdxl.schema import ImageSize


@dataclass(frozen=True)
class NoiseChoice:
    """The noise that was chosen for an image.

    Attributes:
        source: of its numbers.
        seed: of the image.
        eta_noise_seed_delta: added to the seed for the draws after the start.
        variation: of the start; None for none.
        eta: share of the noise that the sampler adds; None for its own.
    """

    source: NoiseSource
    seed: int
    eta_noise_seed_delta: int = 0
    variation: Variation | None = None
    eta: float | None = None


@dataclass(frozen=True)
class KDiffusionPlan:
    """A sampler of k-diffusion, decided for one image; see `SolverPlan`.

    Attributes:
        course: where the sampler goes.
        rehearsal: of the same course and eta.
        timesteps: that the UNet sees at each call, float32 on the CPU, `[calls]`.
        prediction_type: Diffusers' name of what the UNet predicts.
        noise: of the image.
        size: pixels.
        enters_late: whether the course is that of a picture.
    """

    course: Course
    rehearsal: Rehearsal
    timesteps: torch.Tensor
    prediction_type: str
    noise: NoiseChoice
    size: ImageSize
    enters_late: bool = False

    mask_reduction = MaskReduction.ROUNDED

    @property
    def walks_timesteps(self) -> bool:
        """Return whether the sampler goes by timesteps, on latents that keep their variance."""
        return SAMPLERS[self.course.sampler].walks_timesteps

    @property
    def calls(self) -> int:
        """Count the UNet calls."""
        return self.rehearsal.calls

    @property
    def steps(self) -> int:
        """Count the steps of denoising."""
        return self.course.steps_left

    def prompt_step(self, call: int) -> int:
        """Return the step of a call as A1111's loop counts them, where the first one has two calls.

        It looks a prompt up by the number of calls that are done, and has no entry for 0.
        """
        return max(1, call)

    def open_noise(self, device: torch.device, ask: AskForNoise | None = None) -> NoiseAhead:
        """List a run's draws: the start, and what the sampler adds."""
        pinned = (partial(_draw_pinned, draw, device) for draw in self._draws())
        return NoiseAhead(pinned, ask)

    def begin(
        self, start: Start, device: torch.device, noise: NoiseSupply | None = None
    ) -> KDiffusionSolver:
        """Make a run's first latents."""
        supply = noise if isinstance(noise, NoiseAhead) else self.open_noise(device)
        return KDiffusionSolver(self, start, device, supply)

    def _draws(self) -> Iterator[Draw]:
        choice, shape = self.noise, latents_shape(self.size)
        image = ImageNoise(
            choice.source, choice.seed, shape, choice.eta_noise_seed_delta, choice.variation
        )
        # A Brownian path draws its ends when it is made.
        added = cache(partial(self.course.noise, choice.source, choice.seed, image))

        def draw(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
            return added()(sigma, sigma_next)

        yield image.start
        yield from (partial(draw, *request) for request in self.rehearsal.requests)


class KDiffusionSolver:
    """One image's run of a sampler; see `Solver`.

    Args:
        plan: of the image.
        start: what is denoised.
        device: where it runs.
        noise: of the run.
    """

    def __init__(
        self, plan: KDiffusionPlan, start: Start, device: torch.device, noise: NoiseAhead
    ) -> None:
        self._plan = plan
        generator = seeded_generator(plan.noise.seed)
        draws = Draws(
            sample=lambda: copy_to_device(draw_noise(plan.size, generator), device),
            start=lambda: copy_to_device(noise.take(), device),
        )
        beginning = start.begin(CourseEntry(plan.course, is_first=not plan.enters_late), draws)
        self._kept, self.shown = beginning.kept, beginning.shown
        self.denoised = beginning.latents
        self._sampling = Sampling(
            plan.course.begin(
                beginning.latents,
                lambda sigma, sigma_next: copy_to_device(noise(sigma, sigma_next), device),
                plan.noise.eta,
            )
        )

    @property
    def latents(self) -> torch.Tensor:
        """Return the latents of the next call, or the final ones, with the kept picture in them."""
        latents = self._sampling.latents
        if self._sampling.is_done and self._kept is not None:
            return self._kept.put_back(latents)
        return latents

    @property
    def timestep(self) -> torch.Tensor:
        """Return the timestep of the next UNet call."""
        return self._plan.timesteps[self._sampling.calls_done]

    def model_input(self) -> torch.Tensor:
        """Scale the latents to unit variance."""
        return scale_input(self._seen, self._wanted.sigma)

    def advance(self, prediction: torch.Tensor) -> None:
        """Take the sampler's step.

        A kept picture is put back into what the UNet predicts, but where the UNet saw it as it is:
        there the noise that it predicts stays.
        """
        wanted, seen = self._wanted, self._seen
        denoised = denoise(prediction, seen, wanted.sigma, self._plan.prediction_type)
        self.denoised = denoised if self._kept is None else self._kept.put_back(denoised)
        if self._sees_kept:
            self._sampling.advance(denoised + (wanted.latents - seen))
        else:
            self._sampling.advance(self.denoised)

    @property
    def _wanted(self) -> Evaluation:
        wanted = self._sampling.wanted
        assert wanted is not None, "the walk is done"
        return wanted

    @property
    def _sees_kept(self) -> bool:
        """Return whether the UNet sees a kept picture without noise.

        So does A1111 with samplers by timesteps (modules/sd_samplers_timesteps.py of 1c77b18,
        `mask_before_denoising`), though it is not what a UNet expects.
        """
        return self._kept is not None and self._plan.walks_timesteps

    @property
    def _seen(self) -> torch.Tensor:
        """Return the latents that the UNet sees, before they are scaled."""
        wanted = self._wanted
        if self._kept is None or not self._sees_kept:
            return wanted.latents
        # Scaled, it is the picture.
        kept = self._kept.latents * (wanted.sigma**2 + 1).sqrt()
        return self._kept.put_back(wanted.latents, kept)


class CourseEntry:
    """The place at which a job enters its sampler's course.

    Args:
        course: of the image; of a picture the late part.
        is_first: whether noise alone is denoised.
    """

    def __init__(self, course: Course, *, is_first: bool) -> None:
        self._course = course
        self.is_first = is_first

    def scale(self, noise: torch.Tensor) -> torch.Tensor:
        """Make the first latents of noise alone."""
        return self._course.start(noise)

    def add(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Add the first sigma's noise to a picture's latents."""
        return self._course.start(noise, latents)


def _draw_pinned(draw: Draw, device: torch.device) -> torch.Tensor:
    return pin_for(draw(), device)
