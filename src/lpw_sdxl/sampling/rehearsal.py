"""What a walk will need, listed before it begins.

Where a sampler calls the UNet and which noise it asks for depend on its course alone: it is taken
once over latents without elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from lpw_sdxl.sampling.course import Course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.walk import Evaluation, Sampling
from lpw_sdxl.sampling_options import TimestepRounding


class NoiseRequest(NamedTuple):
    """A step that noise is drawn for."""

    sigma: torch.Tensor
    sigma_next: torch.Tensor


@dataclass(frozen=True)
class Rehearsal:
    """The needs of a walk, in order.

    Attributes:
        evaluations: by the model; their latents have no elements.
        requests: for noise.
    """

    evaluations: Sequence[Evaluation]
    requests: Sequence[NoiseRequest]

    @property
    def calls(self) -> int:
        """Count the evaluations."""
        return len(self.evaluations)

    def timesteps(
        self, model: ModelSigmas, rounding: TimestepRounding = TimestepRounding.INTERPOLATE
    ) -> torch.Tensor:
        """Compute the timesteps that the UNet sees, float32 on the CPU, `[calls]`.

        Args:
            model: what the model was trained on.
            rounding: of timesteps that a sigma decides; those of a sampler's own stay as they are.
        """
        own = [each.timestep for each in self.evaluations if each.timestep is not None]
        if own or not self.evaluations:
            return torch.tensor(own)
        sigmas = torch.stack([each.sigma for each in self.evaluations])
        return model.timestep_at(sigmas, rounding)


def rehearse(course: Course, eta: float | None = None) -> Rehearsal:
    """Take a walk over latents without elements.

    Args:
        course: of an image.
        eta: share of the noise; None for the sampler's own.
    """
    nothing = torch.empty(0)
    evaluations, requests = list[Evaluation](), list[NoiseRequest]()

    def note(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        requests.append(NoiseRequest(sigma, sigma_next))
        return nothing

    sampling = Sampling(course.begin(course.start(nothing), note, eta))
    while sampling.wanted is not None:
        evaluations.append(sampling.wanted)
        sampling.advance(nothing)
    return Rehearsal(evaluations, requests)
