from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.step import Denoising, Guidance, PromptSide, guide
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize

SIZE = ImageSize(64, 96)
ROWS = torch.randn((2, 4, 8, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_guidance_of_one_or_less_is_the_positive_row(scale: float) -> None:
    assert not Guidance(scale).is_active
    torch.testing.assert_close(guide(ROWS[1:], Guidance(scale, 0.7)), ROWS[1:])


def test_guidance_extrapolates_from_the_negative_row_past_the_positive_one() -> None:
    guided = guide(ROWS, Guidance(3.0))
    torch.testing.assert_close(guided, ROWS[:1] + 3.0 * (ROWS[1:] - ROWS[:1]))


@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_rescaled_guidance_is_diffusers(rescale: float) -> None:
    expected = rescale_noise_cfg(guide(ROWS, Guidance(7.0)), ROWS[1:], guidance_rescale=rescale)
    torch.testing.assert_close(guide(ROWS, Guidance(7.0, rescale)), expected)


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
