from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from lpw_sdxl.sampler_table import SAMPLERS, SamplerName, SamplerNoise
from lpw_sdxl.sampling.course import Course, make_course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.noise_ahead import DRAWN_AHEAD, NoiseAhead
from lpw_sdxl.sampling.noise_generators import ImageNoise
from lpw_sdxl.sampling.rehearsal import rehearse
from lpw_sdxl.sampling.walk import Noise, Sampling
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType
from sampling_vectors import SHAPE, Toy

NOISY = [name for name, row in SAMPLERS.items() if row.noise is not SamplerNoise.NONE]
SEED = 9


def course_of(sampler: SamplerName, steps: int = 21) -> Course:
    return make_course(sampler, SigmaScheduleType.AUTOMATIC, steps, ModelSigmas.of_sdxl())


def noise_of(course: Course) -> tuple[torch.Tensor, Noise]:
    draws = ImageNoise(NoiseSource.NV, SEED, SHAPE)
    return draws.start(), course.noise(NoiseSource.NV, SEED, draws)


def ahead_of(course: Course, on_taken: Callable[[NoiseAhead], None] | None = None) -> NoiseAhead:
    draws = ImageNoise(NoiseSource.NV, SEED, SHAPE)
    noise = course.noise(NoiseSource.NV, SEED, draws)
    requests = rehearse(course, eta=1.0).requests
    return NoiseAhead([draws.start, *(partial(noise, *each) for each in requests)], on_taken)


def picture(course: Course, start: torch.Tensor, noise: Noise) -> tuple[torch.Tensor, int]:
    sampling = Sampling(course.begin(course.start(start), noise, eta=1.0))
    while sampling.wanted is not None:
        sampling.advance(Toy()(sampling.wanted.latents, sampling.wanted.sigma))
    return sampling.latents, sampling.calls_done


@pytest.mark.parametrize("sampler", NOISY)
def test_noise_that_another_thread_draws_ahead_makes_the_same_picture(
    sampler: SamplerName,
) -> None:
    course = course_of(sampler)
    ahead = ahead_of(course)
    with ThreadPoolExecutor(1) as drawer:
        drawing = drawer.submit(lambda: [ahead.draw_next() for _ in range(40)])
        latents, _ = picture(course, ahead.take(), ahead)
        drawing.result()
    assert torch.equal(latents, picture(course, *noise_of(course))[0])


def test_little_noise_waits() -> None:
    course = course_of(SamplerName.EULER_ANCESTRAL)
    ahead = ahead_of(course)
    assert [ahead.draw_next() for _ in range(DRAWN_AHEAD + 1)] == [True] * DRAWN_AHEAD + [False]


def test_nothing_is_drawn_after_the_last_step() -> None:
    course = course_of(SamplerName.EULER_ANCESTRAL, 3)
    ahead = ahead_of(course)
    picture(course, ahead.take(), ahead)
    assert not ahead.draw_next()


def test_whoever_draws_is_asked_after_each_taking_while_noise_is_left() -> None:
    asked: list[NoiseAhead] = []
    ahead = ahead_of(course_of(SamplerName.EULER_ANCESTRAL, 3), asked.append)
    for taken in range(3):  # the start, and the noise of two of the three steps
        assert len(asked) == taken
        ahead.take()
    assert asked == [ahead] * 2
    with pytest.raises(IndexError):
        ahead.take()


def test_a_draw_that_failed_is_made_again() -> None:
    tries: list[int] = []

    def draw() -> torch.Tensor:
        tries.append(1)
        if len(tries) == 1:
            raise MemoryError
        return torch.ones(1)

    ahead = NoiseAhead([draw])
    with pytest.raises(MemoryError):
        ahead.draw_next()
    assert torch.equal(ahead.take(), torch.ones(1))
