from __future__ import annotations

import pytest
import torch

from lpw_sdxl.sampler_table import SAMPLERS, SamplerName
from lpw_sdxl.sampling.course import SigmaCourse, TimestepCourse, make_course, steps_back, steps_for
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.rehearsal import rehearse
from lpw_sdxl.sampling.walk import Sampling
from lpw_sdxl.sampling_options import SigmaScheduleType
from sampling_vectors import SHAPE, Toy

SDXL = ModelSigmas.of_sdxl()
BY_TIMESTEPS = [name for name, recipe in SAMPLERS.items() if recipe.walks_timesteps]
BY_SIGMAS = [name for name in SAMPLERS if name not in BY_TIMESTEPS]


def course_of(sampler: SamplerName, steps: int = 20) -> SigmaCourse | TimestepCourse:
    course = make_course(sampler, SigmaScheduleType.AUTOMATIC, steps, SDXL)
    assert isinstance(course, SigmaCourse | TimestepCourse)
    return course


@pytest.mark.parametrize(("strength", "calls"), [(0.75, 16), (0.0, 1), (0.5, 11), (1.0, 20)])
def test_a_picture_takes_the_steps_that_a1111_takes(strength: float, calls: int) -> None:
    """20 steps at 0.75 are 16 calls: t is 15, and samplers by sigmas take t + 1 steps."""
    assert rehearse(course_of(SamplerName.EULER).late(steps_back(strength, 20))).calls == calls


@pytest.mark.parametrize(("strength", "timesteps"), [(0.75, 15), (0.0, 1), (0.05, 1), (1.0, 19)])
def test_a_picture_takes_the_timesteps_that_a1111_takes(strength: float, timesteps: int) -> None:
    """20 steps at 0.75 are the 15 lowest of 20 timesteps; DDIM and PLMS walk between them."""
    steps, back = timesteps - 1, steps_back(strength, 20)
    assert rehearse(course_of(SamplerName.DDIM).late(back)).calls == steps
    assert rehearse(course_of(SamplerName.PLMS).late(back)).calls == (steps and steps + 1)
    assert rehearse(course_of(SamplerName.UNIPC).late(back)).calls == timesteps


@pytest.mark.parametrize("sampler", BY_SIGMAS)
def test_a_picture_is_noised_for_the_sigma_it_starts_at(sampler: SamplerName) -> None:
    course = course_of(sampler).late(10)
    assert isinstance(course, SigmaCourse)
    picture, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    start = course.start(noise, picture)
    torch.testing.assert_close(start, picture + course.sigmas[20 - 10 - 1] * noise)
    wanted = Sampling(course.begin(start, lambda *_: noise)).wanted
    assert wanted is not None
    assert torch.equal(wanted.sigma, course.sigmas[9])


@pytest.mark.parametrize("sampler", BY_TIMESTEPS)
def test_a_picture_is_noised_for_the_timestep_above_the_first_call(sampler: SamplerName) -> None:
    """So A1111 has it: it keeps the timesteps below t, and noises for the one at t."""
    course = course_of(sampler).late(10)
    picture, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    start = course.start(noise, picture)
    alpha = 1 / (1 + SDXL.table[501] ** 2)
    torch.testing.assert_close(start, alpha.sqrt() * picture + (1 - alpha).sqrt() * noise)
    wanted = Sampling(course.begin(start, lambda *_: noise)).wanted
    assert wanted is not None
    assert wanted.timestep is not None
    assert wanted.timestep.item() == 451
    torch.testing.assert_close(wanted.sigma, SDXL.table[451])
    torch.testing.assert_close(wanted.latents, start * (1 + SDXL.table[451] ** 2).sqrt())


@pytest.mark.parametrize("sampler", SamplerName)
def test_a_perfect_model_gives_the_picture_back(sampler: SamplerName) -> None:
    """Where the model knows the picture, every sampler without noise to come ends with it."""
    course = course_of(sampler).late(12)
    picture, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(course.begin(course.start(noise, picture), lambda *_: noise, eta=0.0))
    while not sampling.is_done:
        sampling.advance(picture)
    # By timesteps the first one's noise stays in the result: its sigma is 0.04.
    apart = 0.15 if sampler in BY_TIMESTEPS else 1e-3
    torch.testing.assert_close(sampling.latents, picture, rtol=0, atol=apart)


def test_a_course_can_be_begun_again() -> None:
    course = course_of(SamplerName.DPMPP_2M, 6)
    results = []
    for _ in range(2):
        sampling = Sampling(course.begin(course.start(torch.ones(SHAPE)), lambda *_: torch.ones(1)))
        while sampling.wanted is not None:
            sampling.advance(Toy()(sampling.wanted.latents, sampling.wanted.sigma))
        results.append(sampling.latents)
    assert torch.equal(*results)


@pytest.mark.parametrize("sampler", SamplerName)
@pytest.mark.parametrize("kind", ["Karras", "KL Optimal", "DDIM"])
def test_every_sampler_takes_every_schedule(sampler: SamplerName, kind: str) -> None:
    course = make_course(sampler, SigmaScheduleType(kind), 24, SDXL)
    noise = torch.ones(SHAPE)
    sampling = Sampling(course.begin(course.start(noise), lambda *_: noise))
    while sampling.wanted is not None:
        sampling.advance(Toy()(sampling.wanted.latents, sampling.wanted.sigma))
    assert sampling.latents.isfinite().all()


@pytest.mark.parametrize("sampler", SamplerName)
def test_a_perfect_model_ends_zero_terminal_snr_with_its_picture(sampler: SamplerName) -> None:
    model = ModelSigmas.of_sdxl(zero_terminal_snr=True)
    course = make_course(sampler, SigmaScheduleType.AUTOMATIC, 12, model)
    picture, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(course.begin(course.start(noise), lambda *_: noise, eta=0.0))
    assert sampling.wanted is not None
    assert sampling.wanted.sigma > 250  # DDIM's first timestep is 997
    while not sampling.is_done:
        sampling.advance(picture)
    apart = 0.15 if sampler in BY_TIMESTEPS else 1e-2  # float32 at sigma 4518
    torch.testing.assert_close(sampling.latents, picture, rtol=0, atol=apart)


@pytest.mark.parametrize(
    ("strength", "taken", "whole"), [(0.75, 20, 26), (1.0, 20, 20), (0.5, 10, 20), (0.3, 12, 40)]
)
def test_all_steps_of_a_second_pass_are_taken(strength: float, taken: int, whole: int) -> None:
    """They are the end of a longer course, which goes back by one less."""
    assert steps_for(strength, taken) == whole
    assert rehearse(course_of(SamplerName.EULER, whole).late(taken - 1)).calls == taken
    assert rehearse(course_of(SamplerName.DDIM, whole).late(taken - 1)).calls == taken - 2
