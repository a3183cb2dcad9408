"""LCM against Diffusers' scheduler, and the steps of restarts."""

from __future__ import annotations

import pytest
import torch
from diffusers import LCMScheduler

from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling.ancestral_samplers import ancestral_step, restart_steps
from lpw_sdxl.sampling.course import make_course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.noise_generators import ImageNoise
from lpw_sdxl.sampling.schedules import karras
from lpw_sdxl.sampling.walk import Sampling
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType
from sampling_vectors import SHAPE, Toy, largest_error

SDXL = ModelSigmas.of_sdxl()


# With these steps the schedule's sigmas are all at timesteps that the model knows.
@pytest.mark.parametrize("steps", [2, 8, 50])
def test_lcm_is_that_of_diffusers(steps: int) -> None:
    course = make_course(SamplerName.LCM, SigmaScheduleType.AUTOMATIC, steps, SDXL)
    draws = ImageNoise(NoiseSource.CPU, 7, SHAPE)
    sampling = Sampling(course.begin(course.start(draws.start()), draws))
    timesteps = []
    while sampling.wanted is not None:
        timestep = sampling.wanted.timestep
        assert timestep is not None
        timesteps.append(round(timestep.item()))
        sampling.advance(Toy()(sampling.wanted.latents, sampling.wanted.sigma))
    assert largest_error(sampling.latents, lcm_of_diffusers(timesteps, course.start)) < 1e-4


def lcm_of_diffusers(timesteps: list[int], start: object) -> torch.Tensor:
    scheduler = LCMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    scheduler.set_timesteps(timesteps=timesteps)
    generator = torch.Generator().manual_seed(7)
    alpha = scheduler.alphas_cumprod[999]
    assert callable(start)
    latents = start(torch.randn(SHAPE, generator=generator)) * alpha.sqrt()
    for timestep in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[timestep]
        sigma, scaled = ((1 - alpha) / alpha).sqrt(), latents / alpha.sqrt()
        noise = (scaled - Toy()(scaled, sigma)) / sigma
        latents = scheduler.step(noise, timestep, latents, generator=generator).prev_sample
    return latents


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_variances_of_an_ancestral_step_add_up(eta: float) -> None:
    sigma, sigma_next = torch.tensor([5.0, 2.0])
    down, up = ancestral_step(sigma, sigma_next, eta)
    torch.testing.assert_close(down**2 + up**2, sigma_next**2)
    assert (up > 0) == (eta > 0)


@pytest.mark.parametrize(("steps", "restarts"), [(5, 0), (19, 0), (20, 1), (35, 1), (36, 2)])
def test_restarts_go_back_up_and_keep_the_count_of_steps(steps: int, restarts: int) -> None:
    walk = restart_steps(karras(steps, SDXL.smallest, SDXL.largest))
    assert len(walk) == steps
    starts = [start for start, _ in walk[1:]]
    ends = [end for _, end in walk[:-1]]
    jumps = [(end, start) for end, start in zip(ends, starts, strict=True) if start > end]
    assert len(jumps) == restarts
    for end, start in jumps:
        assert 0.03 < end < 0.3
        assert 1 < start < 4
    assert all(start > end for start, end in walk)
