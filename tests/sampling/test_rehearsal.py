from __future__ import annotations

import pytest
import torch

from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling.course import make_course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.rehearsal import rehearse
from lpw_sdxl.sampling.walk import Sampling
from lpw_sdxl.sampling_options import SigmaScheduleType, TimestepRounding
from sampling_vectors import SHAPE, Toy

SDXL = ModelSigmas.of_sdxl()


@pytest.mark.parametrize("sampler", SamplerName)
@pytest.mark.parametrize("steps", [1, 4, 21, 40])
def test_a_rehearsal_lists_what_the_walk_wants(sampler: SamplerName, steps: int) -> None:
    course = make_course(sampler, SigmaScheduleType.AUTOMATIC, steps, SDXL)
    wanted, asked = [], []

    def noise(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        asked.append((sigma.item(), sigma_next.item()))
        return torch.ones(SHAPE)

    sampling = Sampling(course.begin(course.start(torch.ones(SHAPE)), noise, eta=1.0))
    while sampling.wanted is not None:
        wanted.append(sampling.wanted.sigma.item())
        sampling.advance(Toy()(sampling.wanted.latents, sampling.wanted.sigma))
    rehearsal = rehearse(course, eta=1.0)
    assert rehearsal.sigmas.tolist() == wanted
    assert [(low.item(), high.item()) for low, high in rehearsal.requests] == asked
    assert len(rehearsal.timesteps(SDXL)) == rehearsal.calls == sampling.calls_done


def test_timesteps_of_sigmas_are_rounded_and_those_of_a_sampler_are_not() -> None:
    def timesteps(sampler: SamplerName, rounding: TimestepRounding) -> list[float]:
        course = make_course(sampler, SigmaScheduleType.KARRAS, 5, SDXL)
        listed: list[float] = rehearse(course).timesteps(SDXL, rounding).tolist()
        return listed

    fractions = timesteps(SamplerName.EULER, TimestepRounding.INTERPOLATE)
    whole = timesteps(SamplerName.EULER, TimestepRounding.NEAREST)
    assert whole == [round(timestep) for timestep in fractions] != fractions
    unipc = [timesteps(SamplerName.UNIPC, rounding) for rounding in TimestepRounding]
    assert unipc[0] == unipc[1] == pytest.approx([999, 799.2, 599.4, 399.6, 199.8])
