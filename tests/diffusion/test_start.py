from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lpw_sdxl.diffusion.diffusers_solver import DiffusersSolver, SchedulerEntry
from lpw_sdxl.diffusion.encoder import LatentDistribution
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.schedulers import begin_at, make_scheduler, unet_calls
from lpw_sdxl.diffusion.start import (
    Beginning,
    Draws,
    InpaintingStart,
    KeptPicture,
    MaskedStart,
    NoiseStart,
    PictureStart,
    Start,
    fill_mask,
)
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize, MaskedContent
from stock_schedulers import STOCK_SCHEDULERS, stock_scheduler

CONFIG: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
SHAPE = (1, 4, 6, 5)
SIZE = ImageSize(48, 40)
STEPS = 8


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


FIRST, SECOND, THIRD = (drawn(seed) for seed in (1, 2, 3))
PICTURE = LatentDistribution(drawn(4), drawn(5).abs())
HIDDEN = LatentDistribution(drawn(6), drawn(7).abs())
MASK = torch.zeros(1, 1, 6, 5, dtype=torch.bool)
MASK[..., 2:4, 1:4] = True


class Drawings:
    """The noise of a job, of which it is known how often it was drawn."""

    def __init__(self) -> None:
        self._left = [FIRST, SECOND, THIRD]

    def __call__(self) -> torch.Tensor:
        return self._left.pop(0)

    @property
    def count(self) -> int:
        return 3 - len(self._left)


def enter(strength: float, name: SchedulerName = SchedulerName.EULER) -> SchedulerEntry:
    scheduler = make_scheduler(name, CONFIG, STEPS)
    index = len(scheduler.timesteps) - unet_calls(name, STEPS, strength)
    begin_at(scheduler, index)
    return SchedulerEntry(scheduler, index)


def begin(start: Start, strength: float) -> tuple[Beginning, int]:
    drawings = Drawings()
    return start.begin(enter(strength), Draws(drawings, drawings)), drawings.count


def noised(latents: torch.Tensor, noise: torch.Tensor, strength: float) -> torch.Tensor:
    entry = enter(strength)
    sigmas: torch.Tensor = entry.scheduler.sigmas  # type: ignore[attr-defined]
    return latents + noise * sigmas[entry.index]


def test_a_text_starts_from_the_first_drawing() -> None:
    beginning, count = begin(NoiseStart(), 1.0)
    entry = enter(1.0)
    torch.testing.assert_close(beginning.latents, FIRST * entry.scheduler.init_noise_sigma)
    assert (beginning.kept, beginning.shown, count) == (None, None, 1)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_picture_is_sampled_by_the_first_drawing_and_noised_by_the_second(
    strength: float,
) -> None:
    beginning, count = begin(PictureStart(PICTURE), strength)
    sampled = PICTURE.mean + PICTURE.deviation * FIRST
    torch.testing.assert_close(beginning.latents, noised(sampled, SECOND, strength))
    assert (beginning.kept, beginning.shown, count) == (None, None, 2)


def test_a_masked_picture_is_noised_like_another_and_draws_a_third_time() -> None:
    beginning, count = begin(MaskedStart(PICTURE, MASK), 0.5)
    sampled = PICTURE.mean + PICTURE.deviation * FIRST
    torch.testing.assert_close(beginning.latents, noised(sampled, SECOND, 0.5))
    assert beginning.kept is not None
    torch.testing.assert_close(beginning.kept.latents, sampled)
    assert beginning.kept.noise is SECOND
    assert (beginning.shown, count) == (None, 3)


def test_at_full_strength_a_masked_picture_starts_from_noise_alone_and_is_kept() -> None:
    beginning, count = begin(MaskedStart(PICTURE, MASK), 1.0)
    entry = enter(1.0)
    torch.testing.assert_close(beginning.latents, SECOND * entry.scheduler.init_noise_sigma)
    assert beginning.kept is not None
    assert count == 3


def test_an_inpainting_unet_is_shown_the_mask_and_what_is_not_masked() -> None:
    beginning, count = begin(InpaintingStart(HIDDEN, MASK, PICTURE), 0.5)
    sampled = PICTURE.mean + PICTURE.deviation * FIRST
    torch.testing.assert_close(beginning.latents, noised(sampled, SECOND, 0.5))
    assert beginning.shown is not None
    assert beginning.shown.shape == (1, 5, 6, 5)
    assert torch.equal(beginning.shown[:, :1], MASK.float())
    torch.testing.assert_close(beginning.shown[:, 1:], HIDDEN.mean + HIDDEN.deviation * THIRD)
    assert (beginning.kept, count) == (None, 3)


@pytest.mark.parametrize("picture", [None, PICTURE], ids=["no picture", "a picture"])
def test_at_full_strength_an_inpainting_unet_draws_the_noise_first(
    picture: LatentDistribution | None,
) -> None:
    beginning, count = begin(InpaintingStart(HIDDEN, MASK, picture), 1.0)
    entry = enter(1.0)
    torch.testing.assert_close(beginning.latents, FIRST * entry.scheduler.init_noise_sigma)
    assert beginning.shown is not None
    torch.testing.assert_close(beginning.shown[:, 1:], HIDDEN.mean + HIDDEN.deviation * SECOND)
    assert count == 2


INSIDE = {
    MaskedContent.ORIGINAL: lambda latents, _: latents,
    MaskedContent.FILL: lambda latents, _: latents,  # its pixels are filled, not its latents
    MaskedContent.LATENT_NOISE: lambda _, noise: noise,
    MaskedContent.LATENT_NOTHING: lambda latents, _: torch.zeros_like(latents),
}


@pytest.mark.parametrize("content", list(MaskedContent))
@pytest.mark.parametrize(
    "make", [MaskedStart, lambda *given: InpaintingStart(HIDDEN, given[1], given[0], given[2])]
)
def test_the_content_of_the_mask_is_noised_with_the_rest(
    content: MaskedContent, make: Callable[..., Start]
) -> None:
    beginning, _ = begin(make(PICTURE, MASK, content), 0.5)
    sampled = PICTURE.mean + PICTURE.deviation * FIRST
    filled = torch.where(MASK, INSIDE[content](sampled, SECOND), sampled)
    torch.testing.assert_close(beginning.latents, noised(filled, SECOND, 0.5))
    if beginning.kept is not None:  # outside of the mask nothing was filled
        torch.testing.assert_close(beginning.kept.latents, sampled)


def test_filling_changes_no_latents_of_the_caller() -> None:
    before = FIRST.clone()
    for content in MaskedContent:
        fill_mask(FIRST, MASK, content, SECOND)
    assert torch.equal(FIRST, before)


@pytest.mark.parametrize("name", [name for name in SchedulerName if name in STOCK_SCHEDULERS])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_noise_is_added_as_diffusers_adds_it(name: SchedulerName, strength: float) -> None:
    """Before the first step, and for the kept part after each other one but the last."""
    entry = enter(strength, name)
    theirs = stock_scheduler(name, CONFIG, 0)
    theirs.set_timesteps(STEPS)
    begin_at(theirs, entry.index)
    expected = theirs.add_noise(FIRST, SECOND, theirs.timesteps[entry.index : entry.index + 1])
    torch.testing.assert_close(entry.add(FIRST, SECOND), expected)
    solver = DiffusersSolver(entry, MaskedStart(PICTURE, MASK), SIZE, 3, torch.device("cpu"))
    generator = seeded_generator(3)
    sampled, noise = PICTURE.sample(draw_noise(SIZE, generator)), draw_noise(SIZE, generator)
    kept = ~MASK.expand(SHAPE)
    for index in range(entry.index, len(theirs.timesteps)):
        theirs.scale_model_input(THIRD, theirs.timesteps[index])
        theirs.step(THIRD, theirs.timesteps[index], THIRD)
        solver.model_input()
        solver.advance(THIRD)
        upcoming = theirs.timesteps[index + 1 : index + 2]
        expected = theirs.add_noise(sampled, noise, upcoming) if len(upcoming) else sampled
        torch.testing.assert_close(solver.latents[kept], expected[kept])
        assert torch.equal(solver.denoised[kept], sampled[kept])
        assert not torch.isclose(solver.denoised[~kept], sampled[~kept]).all()


def test_a_kept_picture_is_put_back_where_the_mask_is_false() -> None:
    kept = KeptPicture(FIRST, SECOND, MASK)
    assert torch.equal(kept.put_back(SECOND), torch.where(MASK, SECOND, FIRST))
    assert torch.equal(kept.put_back(SECOND, THIRD), torch.where(MASK, SECOND, THIRD))
