"""The needs of a walk, listed before it begins.

Where a sampler calls the UNet and which noise it asks for depend on its course alone: it is taken
once over latents without elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lpw_sdxl.sampling.course import Course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.walk import Sampling
from lpw_sdxl.sampling_options import TimestepRounding


@dataclass(frozen=True)
class Rehearsal:
    """The needs of a walk, in order; all on the CPU, float32.

    Attributes:
        sigmas: of the evaluations by the model, `[calls]`.
        own_timesteps: of the evaluations, `[calls]`; None where the sigmas decide them.
        noise_steps: the two sigmas of each step that noise is drawn for, `[steps, 2]`.
    """

    sigmas: torch.Tensor
    own_timesteps: torch.Tensor | None
    noise_steps: torch.Tensor

    @property
    def calls(self) -> int:
        """Count the evaluations."""
        return len(self.sigmas)

    @property
    def requests(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """List the arguments of each asking for noise: a sigma and the next one, scalars."""
        return [(step[0], step[1]) for step in self.noise_steps]

    def timesteps(
        self, model: ModelSigmas, rounding: TimestepRounding = TimestepRounding.INTERPOLATE
    ) -> torch.Tensor:
        """Compute the timesteps that the UNet sees, `[calls]`.

        Args:
            model: what the model was trained on.
            rounding: of timesteps that a sigma decides; those of a sampler's own stay as they are.
        """
        if self.own_timesteps is not None:
            return self.own_timesteps
        return model.timestep_at(self.sigmas, rounding)


NO_CALLS = Rehearsal(torch.empty(0), None, torch.empty(0, 2))
"""The needs of a course without a step."""


def rehearse(course: Course, eta: float | None = None) -> Rehearsal:
    """Take a walk over latents without elements.

    Args:
        course: of an image.
        eta: share of the noise; None for the sampler's own.
    """
    nothing = torch.empty(0)
    sigmas, timesteps, noise_steps = list[float](), list[float](), list[tuple[float, float]]()

    def note(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        noise_steps.append((sigma.item(), sigma_next.item()))
        return nothing

    sampling = Sampling(course.begin(course.start(nothing), note, eta))
    while sampling.wanted is not None:
        sigmas.append(sampling.wanted.sigma.item())
        if sampling.wanted.timestep is not None:
            timesteps.append(sampling.wanted.timestep.item())
        sampling.advance(nothing)
    return Rehearsal(
        torch.tensor(sigmas),
        torch.tensor(timesteps) if timesteps else None,
        torch.tensor(noise_steps).reshape(-1, 2),
    )
