"""K-diffusion's samplers in the engine, against plain loops with Diffusers' UNet."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from diffusers import UNet2DConditionModel

from gathered import make_together
from lpw_sdxl.engine import Engine
from lpw_sdxl.schema import GenerationRequest, ImageSize
from plain_painter import Drawn, Picture, PlainPainter, watch_timesteps
from plain_samplers import SAMPLERS
from plain_timestep_samplers import SAMPLERS as TIMESTEP_SAMPLERS
from tests.forge.scenes import draw_picture, furthest, to_file

SIZE = ImageSize(64, 96)
STEPS = 5
SCHEDULES = ["Karras", "Exponential", "SGM Uniform", "KL Optimal"]
PICTURE = draw_picture(SIZE, 3)


class Case(NamedTuple):
    sampler: str
    schedule: str = "Automatic"
    has_picture: bool = False


CASES = [
    *(Case(sampler, schedule) for sampler in SAMPLERS for schedule in SCHEDULES),
    # All of them from a picture are in `test_plain_loops`, with a toy in the UNet's place.
    *(Case(name, SCHEDULES[index % 4], has_picture=True) for index, name in enumerate(SAMPLERS)),
    *(Case(name, has_picture=has_one) for name in TIMESTEP_SAMPLERS for has_one in (False, True)),
]


def request(sampler: str, schedule: str = "Automatic", **fields: Any) -> GenerationRequest:
    common = {
        "prompt": "a (fox:1.2)",
        "negative_prompt": "blurry",
        "prompt_style": "a1111",
        "sampler_implementation": "k_diffusion",
        "scheduler": sampler,
        "schedule_type": schedule,
        "num_inference_steps": STEPS,
        "guidance_scale": 4.0,
        "seed": 5,
    }
    return GenerationRequest.model_validate(common | SIZE._asdict() | fields)


def request_of(case: Case) -> GenerationRequest:
    picture = {"image": to_file(PICTURE), "strength": 0.75} if case.has_picture else {}
    return request(case.sampler, case.schedule, seed=CASES.index(case), **picture)


@pytest.fixture(scope="module")
def plain_unet(model_directory: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(model_directory / "unet", local_files_only=True)


@pytest.fixture(scope="module")
def painter(engine: Engine, plain_unet: Any) -> PlainPainter:
    return PlainPainter(engine, plain_unet)


@pytest.fixture(scope="module")
def by_hand(painter: PlainPainter) -> Callable[[Case], Drawn]:
    """Each case's picture, drawn once."""

    @functools.cache
    def draw(case: Case) -> Drawn:
        picture = Picture(PICTURE) if case.has_picture else None
        return painter.draw(request_of(case), case.sampler, case.schedule, picture)

    return draw


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", [*SAMPLERS, *TIMESTEP_SAMPLERS])
async def test_every_picture_is_that_of_a_plain_loop(
    engine: Engine, by_hand: Callable[[Case], Drawn], sampler: str
) -> None:
    for case in CASES:
        if case.sampler != sampler:
            continue
        expected = by_hand(case)
        with watch_timesteps(engine) as timesteps:
            drawn = (await engine.generate(request_of(case))).pixels
        assert furthest(drawn, expected.pixels) <= 1, case
        # A picture says little of the timesteps: this UNet's weights are random.
        assert timesteps == pytest.approx(expected.timesteps, abs=1e-3), case


@pytest.mark.thorough
async def test_in_company_every_picture_is_that_of_a_plain_loop(
    engine: Engine, by_hand: Callable[[Case], Drawn]
) -> None:
    """Pictures of all samplers and schedules share UNet calls."""
    before = sum(engine.counters.unet_calls.values())
    images = await make_together(engine, [request_of(case) for case in CASES])
    calls = sum(engine.counters.unet_calls.values()) - before
    far = {
        case: furthest(image.pixels, by_hand(case).pixels)
        for case, image in zip(CASES, images, strict=True)
    }
    assert max(far.values()) <= 1, far
    assert calls < len(CASES) * STEPS / 2
