from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from lpw_sdxl import sampling
from lpw_sdxl.diffusion.encoder import LatentDistribution
from lpw_sdxl.diffusion.k_diffusion_solver import KDiffusionPlan, NoiseChoice
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.solver import Solver
from lpw_sdxl.diffusion.start import InpaintingStart, MaskedStart, NoiseStart, PictureStart, Start
from lpw_sdxl.sampler_table import SAMPLERS, SamplerName
from lpw_sdxl.sampling.course import make_course, steps_back
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.noise_generators import Variation
from lpw_sdxl.sampling.prediction import scale_input
from lpw_sdxl.sampling.rehearsal import rehearse
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType, TimestepRounding
from lpw_sdxl.schema import ImageSize, MaskedContent
from sampling_vectors import Toy
from waiting import guarded_against_waiting

CPU, META = torch.device("cpu"), torch.device("meta")
SIZE = ImageSize(64, 96)
SHAPE = (1, 4, 8, 12)
SEED = 7
SDXL = ModelSigmas.of_sdxl()
PICTURE = LatentDistribution(torch.full(SHAPE, 0.3), torch.full(SHAPE, 0.5))
MASK = torch.zeros(1, 1, 8, 12, dtype=torch.bool)
MASK[..., 2:5, 3:9] = True


def plan_of(
    sampler: SamplerName = SamplerName.EULER,
    steps: int = 6,
    strength: float | None = None,
    source: NoiseSource = NoiseSource.NV,
    rounding: TimestepRounding = TimestepRounding.INTERPOLATE,
    **noise: Any,
) -> KDiffusionPlan:
    course = make_course(sampler, SigmaScheduleType.AUTOMATIC, steps, SDXL)
    if strength is not None:
        course = course.late(steps_back(strength, steps))
    choice = NoiseChoice(source, SEED, **noise)
    rehearsal = rehearse(course, choice.eta)
    timesteps = rehearsal.timesteps(SDXL, rounding)
    late = strength is not None
    return KDiffusionPlan(course, rehearsal, timesteps, "epsilon", choice, SIZE, late)


def predict_noise(solver: Solver) -> torch.Tensor:
    """The noise that the toy model finds: what a UNet would predict of the scaled input."""
    sigma = solver._sampling.wanted.sigma  # type: ignore[attr-defined]
    latents = solver.model_input() * (sigma**2 + 1).sqrt()
    return (latents - Toy()(latents, sigma)) / sigma


def run(plan: KDiffusionPlan, start: Start = NoiseStart(), noise: Any = None) -> Solver:  # noqa: B008
    solver = plan.begin(start, CPU, noise)
    for _ in range(plan.calls):
        solver.advance(predict_noise(solver))
    return solver


@pytest.mark.parametrize("sampler", SamplerName)
def test_a_text_is_what_the_samplers_function_draws(sampler: SamplerName) -> None:
    expected = sampling.sample(
        Toy(),
        sampler=sampler,
        schedule_type="Automatic",
        steps=6,
        seed=SEED,
        noise_source="nv",
        shape=SHAPE,
    )
    torch.testing.assert_close(run(plan_of(sampler)).latents, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sampler", SamplerName)
def test_noise_that_others_draw_ahead_changes_nothing(sampler: SamplerName) -> None:
    plan = plan_of(sampler)
    with ThreadPoolExecutor(2) as drawers:
        noise = plan.open_noise(CPU, lambda noise: drawers.submit(noise.draw_next))
        noise.draw_next()
        ahead = run(plan, noise=noise).latents
    assert torch.equal(ahead, run(plan).latents)


def test_a_picture_is_sampled_with_a_generator_of_its_own() -> None:
    solver = plan_of(strength=0.5).begin(PictureStart(PICTURE), CPU)
    sampled = PICTURE.sample(draw_noise(SIZE, seeded_generator(SEED)))
    start = sampling.noise("nv", SEED, SHAPE, 1)[0]
    sigma = sampling.sigmas("Uniform", 6)[2]  # 6 - int(0.5 * 6) - 1
    torch.testing.assert_close(solver.latents, sampled + sigma * start)
    assert plan_of(strength=0.5).calls == 4


@pytest.mark.parametrize("sampler", SamplerName)
def test_the_kept_part_is_put_into_each_prediction_and_into_the_end(sampler: SamplerName) -> None:
    plan = plan_of(sampler, strength=0.9)
    solver = plan.begin(MaskedStart(PICTURE, MASK), CPU)
    sampled = PICTURE.sample(draw_noise(SIZE, seeded_generator(SEED)))
    kept = ~MASK.expand(SHAPE)
    for _ in range(plan.calls):
        solver.advance(predict_noise(solver))
        assert torch.equal(solver.denoised[kept], sampled[kept])
    assert torch.equal(solver.latents[kept], sampled[kept])
    assert not torch.isclose(solver.latents[~kept], sampled[~kept]).any()


@pytest.mark.parametrize("sampler", SamplerName)
def test_a_unet_sees_the_kept_part_without_noise_where_a_sampler_walks_timesteps(
    sampler: SamplerName,
) -> None:
    plan = plan_of(sampler, strength=0.9)
    solver = plan.begin(MaskedStart(PICTURE, MASK), CPU)
    sampled = PICTURE.sample(draw_noise(SIZE, seeded_generator(SEED)))
    kept = ~MASK.expand(SHAPE)
    for _ in range(plan.calls):
        wanted = solver._sampling.wanted
        assert wanted is not None
        seen, scaled = solver.model_input(), scale_input(wanted.latents, wanted.sigma)
        expected = sampled if SAMPLERS[sampler].walks_timesteps else scaled
        torch.testing.assert_close(seen[kept], expected[kept])
        torch.testing.assert_close(seen[~kept], scaled[~kept])
        solver.advance(predict_noise(solver))


def test_an_inpainting_model_sees_the_mask_beside_the_latents() -> None:
    solver = plan_of(strength=0.5).begin(InpaintingStart(PICTURE, MASK, PICTURE), CPU)
    assert solver.shown is not None
    assert torch.equal(solver.shown[:, :1], MASK.float())


@pytest.mark.parametrize("sampler", SamplerName)
def test_a_call_is_at_the_timestep_of_its_sigma(sampler: SamplerName) -> None:
    for rounding in TimestepRounding:
        plan = plan_of(sampler, rounding=rounding)
        solver = plan.begin(NoiseStart(), CPU)
        for _ in range(plan.calls):
            wanted = solver._sampling.wanted
            assert wanted is not None
            expected = wanted.timestep
            if expected is None:
                expected = SDXL.timestep_at(wanted.sigma, rounding)
            assert solver.timestep == expected
            assert torch.equal(solver.model_input(), scale_input(wanted.latents, wanted.sigma))
            solver.advance(predict_noise(solver))


def test_the_first_text_of_a_prompt_is_in_force_for_two_calls() -> None:
    assert [plan_of().prompt_step(call) for call in range(4)] == [1, 1, 2, 3]


def test_a_changed_seed_for_ancestral_noise_leaves_the_start() -> None:
    plans = [
        plan_of(SamplerName.EULER_ANCESTRAL, eta_noise_seed_delta=delta) for delta in (0, 31337)
    ]
    first, second = (plan.begin(NoiseStart(), CPU).latents for plan in plans)
    assert torch.equal(first, second)
    assert not torch.isclose(*(run(plan).latents for plan in plans)).all()


def test_a_variation_turns_the_start() -> None:
    variation = Variation(9, 0.3)
    solver = plan_of(variation=variation).begin(NoiseStart(), CPU)
    turned = sampling.variation(SEED, 9, 0.3, SHAPE)
    torch.testing.assert_close(solver.latents, turned * sampling.sigmas("Uniform", 6)[0])


NOISY = [name for name, row in SAMPLERS.items() if row.eta is not None]


@pytest.mark.parametrize("sampler", NOISY)
def test_eta_is_the_share_of_the_noise(sampler: SamplerName) -> None:
    none, half, all_ = (run(plan_of(sampler, eta=eta)).latents for eta in (0.0, 0.5, 1.0))
    assert not torch.isclose(none, half).all()
    assert not torch.isclose(half, all_).all()
    own = run(plan_of(sampler)).latents
    torch.testing.assert_close(own, all_ if SAMPLERS[sampler].eta else none)


@pytest.mark.parametrize("sampler", SamplerName)
@pytest.mark.parametrize("start", ["text", "picture", "mask", "inpainting model"])
def test_no_step_waits_for_the_device(sampler: SamplerName, start: str) -> None:
    picture = LatentDistribution(PICTURE.mean.to(META), PICTURE.deviation.to(META))
    mask = MASK.to(META)
    starts: dict[str, Start] = {
        "text": NoiseStart(),
        "picture": PictureStart(picture),
        "mask": MaskedStart(picture, mask, MaskedContent.LATENT_NOTHING),
        "inpainting model": InpaintingStart(picture, mask, picture, MaskedContent.LATENT_NOISE),
    }
    plan = plan_of(sampler, strength=None if start == "text" else 0.75, source=NoiseSource.CPU)
    prediction = torch.randn(SHAPE).to(META)
    with guarded_against_waiting() as guard:
        guard()
        solver = plan.begin(starts[start], META)
        for _ in range(plan.calls):
            solver.model_input()
            solver.advance(prediction)
        assert solver.latents.is_meta
        assert solver.denoised.is_meta
