from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

from lpw_sdxl.diffusion.encoder import LatentDistribution
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.schedulers import unet_calls
from lpw_sdxl.diffusion.start import (
    InpaintingStart,
    MaskedStart,
    NoiseStart,
    PictureStart,
    Start,
)
from lpw_sdxl.diffusion.step import Denoising, Guidance, PromptSide, guide
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize, MaskedContent
from waiting import guarded_against_waiting

SIZE = ImageSize(64, 96)
ROWS = torch.randn((2, 4, 8, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_guidance_of_one_or_less_is_the_positive_row(scale: float) -> None:
    assert not Guidance(scale).is_active(0, 4)
    alone = guide(ROWS[1:], Guidance(scale, 0.7), has_negative=False)
    torch.testing.assert_close(alone, ROWS[1:])


def test_guidance_extrapolates_from_the_negative_row_past_the_positive_one() -> None:
    guided = guide(ROWS, Guidance(3.0), has_negative=True)
    torch.testing.assert_close(guided, ROWS[:1] + 3.0 * (ROWS[1:] - ROWS[:1]))


@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_rescaled_guidance_is_diffusers(rescale: float) -> None:
    plain = guide(ROWS, Guidance(7.0), has_negative=True)
    expected = rescale_noise_cfg(plain, ROWS[1:], guidance_rescale=rescale)
    rescaled = guide(ROWS, Guidance(7.0, rescale), has_negative=True)
    torch.testing.assert_close(rescaled, expected)


def test_an_image_begins_with_its_own_noise(make_denoising: Any) -> None:
    denoising = make_denoising(size=SIZE, seed=5)
    noise = draw_noise(SIZE, seeded_generator(5))
    scheduler = EulerDiscreteScheduler(1000, 0.00085, 0.012, "scaled_linear")
    scheduler.set_timesteps(4)
    torch.testing.assert_close(denoising.latents, noise * scheduler.init_noise_sigma)
    assert denoising.denoised is denoising.latents


def test_with_guidance_an_image_has_a_negative_and_a_positive_row(make_denoising: Any) -> None:
    denoising = make_denoising(90, 77, size=SIZE)
    negative, positive = denoising.rows()
    assert denoising.row_count == 2
    assert (negative.prompt.tokens, positive.prompt.tokens) == (77, 90)
    assert negative.latents is positive.latents
    assert negative.time_ids.tolist() == [64, 96, 0, 0, 64, 96]


def test_without_guidance_it_has_the_positive_row_alone(make_denoising: Any) -> None:
    denoising = make_denoising(90, 77, guidance=Guidance(1.0))
    assert denoising.row_count == 1
    assert [row.prompt.tokens for row in denoising.rows()] == [90]


@pytest.mark.parametrize("name", list(SchedulerName))
def test_it_is_done_after_its_unet_calls_and_has_a_denoised_estimate(
    make_denoising: Any, name: SchedulerName
) -> None:
    denoising = make_denoising(size=SIZE, scheduler=name, steps=3)
    drawn = torch.Generator().manual_seed(1)
    for done in range(denoising.unet_calls):
        assert not denoising.is_done
        assert denoising.unet_calls_done == done
        denoising.rows()
        denoising.advance(torch.randn((2, 4, 8, 12), generator=drawn))
        assert denoising.latents.shape == denoising.denoised.shape == (1, 4, 8, 12)
        assert denoising.latents.dtype == torch.float32
    assert denoising.is_done


def test_denoised_is_the_image_without_the_predicted_noise(make_denoising: Any) -> None:
    """The noise is predicted exactly, and the image is nothing but noise."""
    denoising = make_denoising(size=SIZE, seed=3, guidance=Guidance(1.0))
    denoising.advance(draw_noise(SIZE, seeded_generator(3)))
    assert denoising.denoised.abs().max() < 1e-3
    assert denoising.latents.abs().max() > 0.1


def advance(denoising: Denoising) -> None:
    denoising.rows()  # as for a UNet call: some schedulers warn without it
    denoising.advance(ROWS)


@pytest.mark.parametrize("name", list(SchedulerName))
def test_a_seed_decides_all_noise_whatever_other_images_draw(
    make_denoising: Any, name: SchedulerName
) -> None:
    one, other = (make_denoising(scheduler=name, seed=7, size=SIZE) for _ in range(2))
    another = make_denoising(scheduler=name, seed=8, size=SIZE)
    while not one.is_done:
        advance(one)
    while not other.is_done:
        advance(another)
        torch.randn(3)  # from the global generator, which no image uses
        advance(other)
    assert torch.equal(one.latents, other.latents)
    assert not torch.equal(one.latents, another.latents)


SAMPLED = LatentDistribution(ROWS[:1], ROWS[1:].abs())
MASK = torch.zeros(1, 1, 8, 12, dtype=torch.bool)
MASK[..., 2:5, 3:9] = True
STARTS = {
    "noise": NoiseStart(),
    "a picture": PictureStart(SAMPLED),
    "a mask": MaskedStart(SAMPLED, MASK),
    "an inpainting model": InpaintingStart(SAMPLED, MASK, SAMPLED),
}


@pytest.mark.parametrize("name", list(SchedulerName))
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_job_that_enters_late_takes_the_last_timesteps(
    make_denoising: Any, name: SchedulerName, start: Start
) -> None:
    whole = make_denoising(scheduler=name, steps=4, size=SIZE)
    calls = unet_calls(name, 4, 0.5)
    denoising = make_denoising(scheduler=name, steps=4, size=SIZE, start=start, strength=0.5)
    timesteps = []
    while not denoising.is_done:
        timesteps.append(denoising.timestep)
        advance(denoising)
    assert denoising.unet_calls == denoising.unet_calls_done == len(timesteps) == calls
    assert timesteps == [*whole._solver._scheduler.timesteps][-calls:]
    assert denoising.latents.isfinite().all()


@pytest.mark.parametrize("name", list(SchedulerName))
def test_what_is_not_masked_ends_as_the_pictures_own_latents(
    make_denoising: Any, name: SchedulerName
) -> None:
    start = MaskedStart(SAMPLED, MASK)
    denoising = make_denoising(scheduler=name, size=SIZE, seed=5, start=start)
    sampled = SAMPLED.sample(draw_noise(SIZE, seeded_generator(5)))
    while not denoising.is_done:
        assert not torch.equal(denoising.latents[~MASK.expand(ROWS[:1].shape)], sampled)
        advance(denoising)
        kept = ~MASK.expand(denoising.denoised.shape)
        assert torch.equal(denoising.denoised[kept], sampled[kept])
    assert torch.equal(denoising.latents[kept], sampled[kept])
    assert not torch.isclose(denoising.latents[~kept], sampled[~kept]).any()


def test_the_rows_of_an_inpainting_model_have_9_channels(make_denoising: Any) -> None:
    start = InpaintingStart(SAMPLED, MASK)
    denoising = make_denoising(size=SIZE, start=start)
    for _ in range(2):
        negative, positive = denoising.rows()
        assert negative.latents is positive.latents
        assert positive.latents.shape == (1, 9, 8, 12)
        assert torch.equal(positive.latents[:, 4:5], MASK.float())
        shown = positive.latents[:, 5:]
        denoising.advance(ROWS)
        assert torch.equal(denoising.rows()[0].latents[:, 5:], shown)  # it is not scaled
    assert denoising.latents.shape == (1, 4, 8, 12)


@pytest.mark.parametrize("name", list(SchedulerName))
@pytest.mark.parametrize("start", [*STARTS][1:])
def test_no_start_waits_for_the_device(
    make_denoising: Any, name: SchedulerName, start: str
) -> None:
    meta = LatentDistribution(SAMPLED.mean.to("meta"), SAMPLED.deviation.to("meta"))
    mask = MASK.to("meta")
    on_meta = {
        "a picture": PictureStart(meta),
        "a mask": MaskedStart(meta, mask, MaskedContent.LATENT_NOTHING),
        "an inpainting model": InpaintingStart(meta, mask, meta, MaskedContent.LATENT_NOISE),
    }
    device, rows = torch.device("meta"), ROWS.to("meta")
    with guarded_against_waiting() as guard:
        guard()
        denoising = make_denoising(
            scheduler=name, size=SIZE, start=on_meta[start], strength=0.75, device=device
        )
        while not denoising.is_done:
            denoising.rows()
            denoising.advance(rows)
    assert denoising.latents.is_meta


def test_a_prompt_is_projected_once() -> None:
    side = PromptSide(torch.ones(3, 2), torch.zeros(1))
    projected = []

    def project(embeds: torch.Tensor) -> torch.Tensor:
        projected.append(embeds)
        return embeds * 2

    first = side.project_once(project)
    assert side.project_once(project) is first
    assert len(projected) == 1
    assert side.tokens == 3
