from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import LCMScheduler

from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling.course import make_course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.noise_generators import ImageNoise
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


def lcm_of_diffusers(
    timesteps: list[int], start: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    scheduler = LCMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    scheduler.set_timesteps(timesteps=timesteps)
    generator = torch.Generator().manual_seed(7)
    alpha = scheduler.alphas_cumprod[999]
    latents = start(torch.randn(SHAPE, generator=generator)) * alpha.sqrt()
    for timestep in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[timestep]
        sigma, scaled = ((1 - alpha) / alpha).sqrt(), latents / alpha.sqrt()
        noise = (scaled - Toy()(scaled, sigma)) / sigma
        latents = scheduler.step(noise, timestep, latents, generator=generator).prev_sample
    return latents
