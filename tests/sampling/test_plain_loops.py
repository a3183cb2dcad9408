"""Every sampler over every schedule against the plain loops, from noise and from a picture."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import plain_samplers
import plain_schedules
import plain_timestep_samplers
from lpw_sdxl.sampler_table import SAMPLERS, SamplerName
from lpw_sdxl.sampling.course import make_course, steps_back
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.noise_generators import ImageNoise
from lpw_sdxl.sampling.walk import Sampling
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType
from sampling_vectors import SHAPE, Toy, largest_error

SEED = 5
TOLERANCE = 2e-5  # of the largest value; float32, added in another order
PICTURE = torch.randn(SHAPE, generator=torch.Generator().manual_seed(77))
ALPHAS = plain_schedules.trained_alphas()
TRAINED = plain_schedules.trained_sigmas(ALPHAS)
SCHEDULES = ["Automatic", *plain_schedules.SCHEDULES]


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", [*plain_samplers.SAMPLERS, *plain_timestep_samplers.SAMPLERS])
def test_a_walk_is_that_of_a_plain_loop(sampler: str) -> None:
    has_schedules = sampler in plain_samplers.SAMPLERS
    all_steps = [1, 3, 8, 20, 37] if sampler == "Restart" else [1, 3, 8]
    etas = [None] if SAMPLERS[SamplerName(sampler)].eta is None else [None, 0.0, 0.4]
    for schedule, steps, strength, eta in itertools.product(
        SCHEDULES if has_schedules else SCHEDULES[:1], all_steps, [None, 0.0, 0.6], etas
    ):
        ours, theirs = Toy(), Toy()
        result = walk(ours, sampler, schedule, steps, strength, eta)
        loop = loop_over_sigmas if has_schedules else loop_over_timesteps
        options = {} if eta is None else {"eta": eta}
        expected = loop(theirs, sampler, schedule, steps, strength, options)
        case = (schedule, steps, strength, eta)
        assert ours.calls == theirs.calls, case
        assert largest_error(result, expected) < TOLERANCE, case


def walk(
    toy: Toy, sampler: str, schedule: str, steps: int, strength: float | None, eta: float | None
) -> torch.Tensor:
    course = make_course(
        SamplerName(sampler), SigmaScheduleType(schedule), steps, ModelSigmas.of_sdxl()
    )
    course = course if strength is None else course.late(steps_back(strength, steps))
    draws = ImageNoise(NoiseSource.CPU, SEED, SHAPE)
    latents = course.start(draws.start(), None if strength is None else PICTURE)
    sampling = Sampling(course.begin(latents, course.noise(NoiseSource.CPU, SEED, draws), eta))
    while sampling.wanted is not None:
        sampling.advance(toy(sampling.wanted.latents, sampling.wanted.sigma))
    return sampling.latents


class Draws:
    """Torch's numbers for one seed."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(SEED)

    def __call__(self, *_: torch.Tensor) -> torch.Tensor:
        return torch.randn(SHAPE, generator=self._generator)


def loop_over_sigmas(
    toy: Toy,
    sampler: str,
    schedule: str,
    steps: int,
    strength: float | None,
    options: dict[str, float],
) -> torch.Tensor:
    draws = Draws()
    sigmas = left = plain_schedules.make_sigmas(sampler, schedule, steps, TRAINED)
    if strength is not None:
        left = sigmas[steps - int(min(strength, 0.999) * steps) - 1 :]
    x = draws() * left[0] + (0 if strength is None else PICTURE)
    is_brownian = sampler in plain_samplers.BROWNIAN
    noise: Any = plain_samplers.brownian(x, sigmas, SEED) if is_brownian else draws
    return plain_samplers.SAMPLERS[sampler](toy, x, left, noise, **options)


def loop_over_timesteps(
    toy: Toy,
    sampler: str,
    schedule: str,
    steps: int,
    strength: float | None,
    options: dict[str, float],
) -> torch.Tensor:
    draws = Draws()
    timesteps = plain_schedules.timesteps_of_ddim(steps)
    x, top = draws(), 999.0
    if strength is not None:
        back = int(min(strength, 0.999) * steps)
        alpha = ALPHAS[timesteps[back]].float()
        x = alpha.sqrt() * PICTURE + (1 - alpha).sqrt() * x
        timesteps = timesteps[: max(back, 1)]
        top = timesteps[-1]

    def predicted_noise(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        alpha = plain_timestep_samplers.alpha_at(timestep, ALPHAS)
        latents, sigma = x / alpha.sqrt(), ((1 - alpha) / alpha).sqrt()
        return (latents - toy(latents, sigma)) / sigma

    walked: Any = timesteps
    if sampler == "UniPC":
        walked = plain_schedules.times_of_unipc(len(timesteps), top)
    loop = plain_timestep_samplers.SAMPLERS[sampler]
    return loop(predicted_noise, x, walked, ALPHAS.float(), draws, **options)
