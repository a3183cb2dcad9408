"""Walks that pause for each UNet call: several at once are each as they are alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import torch

from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling.course import make_course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.noise_generators import ImageNoise
from lpw_sdxl.sampling.walk import Evaluation, Sampling, Walk
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType
from sampling_vectors import SHAPE, Toy, read_cases
from waiting import guarded_against_waiting

SDXL = ModelSigmas.of_sdxl()


def begin(sampler: SamplerName, steps: int, seed: int) -> Sampling:
    course = make_course(sampler, SigmaScheduleType.AUTOMATIC, steps, SDXL)
    draws = ImageNoise(NoiseSource.CPU, seed, SHAPE)
    latents = course.start(draws.start())
    return Sampling(course.begin(latents, course.noise(NoiseSource.CPU, seed, draws)))


def run_alone(sampling: Sampling) -> torch.Tensor:
    while sampling.wanted is not None:
        sampling.advance(Toy()(sampling.wanted.latents, sampling.wanted.sigma))
    return sampling.latents


def advance_together(samplings: Sequence[Sampling]) -> None:
    """Evaluate what several walks want in one call, as the engine does."""
    wanted = [sampling.wanted for sampling in samplings]
    assert None not in wanted
    evaluations = [each for each in wanted if each is not None]
    latents = torch.stack([each.latents for each in evaluations])
    sigmas = torch.stack([each.sigma for each in evaluations]).reshape(-1, 1, 1, 1)
    for sampling, denoised in zip(samplings, Toy()(latents, sigmas), strict=True):
        sampling.advance(denoised)


def test_jobs_that_share_calls_make_the_pictures_they_make_alone() -> None:
    jobs = [(name, 3 + index, 50 + index) for index, name in enumerate(SamplerName)]
    samplings = [begin(*job) for job in jobs]
    chance = random.Random(4)
    while left := [sampling for sampling in samplings if not sampling.is_done]:
        advance_together(chance.sample(left, k=chance.randint(1, len(left))))
    for sampling, job in zip(samplings, jobs, strict=True):
        alone = begin(*job)
        torch.testing.assert_close(sampling.latents, run_alone(alone), rtol=1e-5, atol=1e-5)
        assert sampling.calls_done == alone.calls_done


@pytest.mark.parametrize("sampler", SamplerName)
def test_a_walk_leaves_what_it_was_given_as_it_was(sampler: SamplerName) -> None:
    """The engine keeps predictions for previews, and latents in a batch."""
    sampling, given = begin(sampler, 5, 1), []
    while sampling.wanted is not None:
        latents = sampling.wanted.latents
        denoised = Toy()(latents, sampling.wanted.sigma)
        given.append((latents, latents.clone(), denoised, denoised.clone()))
        sampling.advance(denoised)
    for latents, before, denoised, denoised_before in given:
        assert torch.equal(latents, before)
        assert torch.equal(denoised, denoised_before)


@pytest.mark.parametrize(
    "case",
    [case for case in read_cases("timesteps") if "timesteps" in case],
    ids=lambda case: f"{case['sampler']}-{case['steps']}",
)
def test_samplers_by_timesteps_call_at_those_of_forge(case: dict[str, object]) -> None:
    sampling, timesteps = begin(SamplerName(str(case["sampler"])), int(str(case["steps"])), 1), []
    while sampling.wanted is not None:
        assert sampling.wanted.timestep is not None
        timesteps.append(sampling.wanted.timestep.item())
        # The sigma is that of the same timestep, up to where between two it is read.
        torch.testing.assert_close(
            SDXL.timestep_at(sampling.wanted.sigma), sampling.wanted.timestep, rtol=0, atol=0.02
        )
        sampling.advance(sampling.wanted.latents)
    assert timesteps == pytest.approx(case["timesteps"], rel=1e-6)


def test_a_walk_without_calls_is_done_at_once() -> None:
    def stand(latents: torch.Tensor) -> Walk:
        return latents
        yield Evaluation(latents, latents)

    latents = torch.ones(SHAPE)
    sampling = Sampling(stand(latents))
    assert sampling.is_done
    assert sampling.latents is latents


def run_on(device: str, sampler: SamplerName, between: Callable[[], object]) -> torch.Tensor:
    """Run a sampler with latents and noise on a device, and a prediction of it."""
    course = make_course(sampler, SigmaScheduleType.AUTOMATIC, 21, SDXL)
    noise = torch.full(SHAPE, 0.3, device=device)
    sampling = Sampling(course.begin(course.start(noise), lambda *_: noise))
    between()
    while not sampling.is_done:
        sampling.advance(sampling.latents * 0.5)
    return sampling.latents


@pytest.mark.parametrize("sampler", SamplerName)
def test_no_step_waits_for_the_device(sampler: SamplerName) -> None:
    with guarded_against_waiting() as guard:
        assert run_on("meta", sampler, guard).is_meta


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("sampler", SamplerName)
def test_no_step_waits_for_a_gpu_and_it_computes_what_a_cpu_does(sampler: SamplerName) -> None:
    try:
        latents = run_on("cuda", sampler, lambda: torch.cuda.set_sync_debug_mode("error"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = run_on("cpu", sampler, lambda: None)
    torch.testing.assert_close(latents.cpu(), expected, rtol=1e-3, atol=1e-4)
