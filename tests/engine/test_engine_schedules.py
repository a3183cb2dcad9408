"""Pictures of every schedule type against Diffusers' stock pipeline, to one grey level."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionXLPipeline,
    TCDScheduler,
)

from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.schedulers import make_scheduler
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.calibration import calibrate
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings
from pages import DOCS
from stock_schedulers import OWN_TIMESTEPS, TAKEN, stock_scheduler

SEED = 11
SIZE = ImageSize(height=96, width=64)
Pixels = np.ndarray[Any, Any]


def request(**fields: Any) -> GenerationRequest:
    common = {"prompt": "a (fox:1.2)", "negative_prompt": "blurry", "seed": SEED}
    return GenerationRequest.model_validate(
        common | {"num_inference_steps": 4, **SIZE._asdict()} | fields
    )


@pytest.fixture(scope="module")
def stock(model_directory: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(model_directory, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_stock(
    stock: StableDiffusionXLPipeline,
    engine: Engine,
    wanted: GenerationRequest,
    scheduler: Any,
    **call: Any,
) -> Pixels:
    """Draw with Diffusers' own loop, scheduler, guidance and VAE, `[h, w, 3]` of 0 to 255."""
    stock.scheduler = scheduler
    embeds = engine.pipeline.prompt_encoder.encode(wanted.prompt, wanted.negative_prompt)
    generator = seeded_generator(SEED)
    steps = {} if "timesteps" in call else {"num_inference_steps": wanted.num_inference_steps}
    image = stock(
        prompt_embeds=embeds.prompt_embeds[None],
        negative_prompt_embeds=embeds.negative_prompt_embeds[None],
        pooled_prompt_embeds=embeds.pooled_prompt_embeds[None],
        negative_pooled_prompt_embeds=embeds.negative_pooled_prompt_embeds[None],
        latents=draw_noise(SIZE, generator),
        generator=generator,
        guidance_scale=wanted.guidance_scale,
        # The pipeline turns off whatever noise `eta` scales; the TCD scheduler's own is 0.3.
        eta=0.3 if isinstance(scheduler, TCDScheduler) else 0.0,
        output_type="np",
        **SIZE._asdict(),
        **steps,
        **call,
    ).images[0]
    return (image * 255).round().astype(int)


def furthest(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# Diffusers' DPM++ SDE passes torchsde times past the ends of its path, by rounding.
@pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning:torchsde")
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("steps", "guidance"),
    [
        (4, 6.5),
        *(pytest.param(steps, 1.0, marks=pytest.mark.slow) for steps in (1, 4, 7)),
        *(pytest.param(steps, 6.5, marks=pytest.mark.slow) for steps in (1, 7)),
    ],
)
@pytest.mark.parametrize(("name", "schedule_type"), TAKEN)
async def test_every_scheduler_draws_every_type_as_the_stock_pipeline_does(
    engine: Engine,
    stock: StableDiffusionXLPipeline,
    name: SchedulerName,
    schedule_type: ScheduleType,
    steps: int,
    guidance: float,
) -> None:
    wanted = request(
        scheduler=name,
        schedule_type=schedule_type,
        num_inference_steps=steps,
        guidance_scale=guidance,
    )
    image = await engine.generate(wanted)
    assert image.record.schedule_type is schedule_type
    theirs = stock_scheduler(name, engine.pipeline.scheduler_config, SEED, schedule_type)
    assert furthest(image.pixels, draw_stock(stock, engine, wanted, theirs)) <= 1


async def test_another_type_is_another_picture(engine: Engine) -> None:
    images = [await engine.generate(request(schedule_type=kind)) for kind in ScheduleType]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert min(furthest(images[a].pixels, images[b].pixels) for a, b in pairs) > 8


# The table of few-step models


@dataclass(frozen=True)
class Row:
    """A row of the page: a kind of model and the request that it needs."""

    model: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.model}-{'-'.join(map(str, self.fields.values()))}"


def rows_of_the_page() -> Iterator[Row]:
    """Read every request that the table names: each count of steps with each guidance."""
    (page,) = [page for page in DOCS if page.name == "docs/requests.md"]
    section = page.text.partition("\n## Few-step models\n")[2].partition("\n## ")[0]
    for line in re.findall(r"^\| (.+) \|$", section, re.MULTILINE)[
        1:
    ]:  # the first names the columns
        model, scheduler, schedule_type, steps, guidance = line.split(" | ")
        for count in steps.split(", "):
            for scale in guidance.split(", "):
                fields = {
                    "scheduler": scheduler.strip("`"),
                    "schedule_type": None
                    if schedule_type == "`null`"
                    else schedule_type.strip("`"),
                    "num_inference_steps": int(count),
                    "guidance_scale": float(scale),
                }
                yield Row(model, fields)


ROWS = [*rows_of_the_page()]
# What the models' own pages set in Diffusers, written down apart from the table.
SPACED = {"timestep_spacing": "trailing"}
SET_IN_DIFFUSERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LCM": (LCMScheduler, {}),
    "Turbo": (EulerAncestralDiscreteScheduler, SPACED),
    "Lightning": (EulerDiscreteScheduler, SPACED),
    "Hyper-SD": (DDIMScheduler, SPACED | {"clip_sample": False}),
    "Hyper-SD, CFG": (DDIMScheduler, SPACED | {"clip_sample": False}),
    "PCM, small CFG": (DDIMScheduler, SPACED | {"clip_sample": False}),
    "PCM, normal CFG": (DDIMScheduler, SPACED | {"clip_sample": False}),
    "DMD2": (LCMScheduler, {}),
}
CALLED_WITH: dict[str, dict[str, Any]] = {"DMD2": {"timesteps": [999, 749, 499, 249]}}


def test_the_page_names_every_kind_of_few_step_model() -> None:
    assert {row.model for row in ROWS} == set(SET_IN_DIFFUSERS)
    assert any(row.fields["num_inference_steps"] == 1 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_a_row_of_the_page_draws_what_diffusers_draws_with_the_models_settings(
    engine: Engine, stock: StableDiffusionXLPipeline, row: Row
) -> None:
    wanted = request(**row.fields)
    image = await engine.generate(wanted)
    scheduler_class, changes = SET_IN_DIFFUSERS[row.model]
    theirs = scheduler_class.from_config(dict(engine.pipeline.scheduler_config), **changes)
    call = CALLED_WITH.get(row.model, {})
    assert furthest(image.pixels, draw_stock(stock, engine, wanted, theirs, **call)) <= 1


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_of_the_page_begins_at_the_last_timestep(engine: Engine, row: Row) -> None:
    record = engine.decide(request(**row.fields)).record
    scheduler = make_scheduler(
        record.scheduler,
        engine.pipeline.scheduler_config,
        record.request.num_inference_steps,
        record.schedule_type,
    )
    assert int(scheduler.timesteps[0]) == 999


# The model's own type


@pytest.fixture(scope="module")
def own_types(engine: Engine) -> Iterator[dict[ScheduleType, Engine]]:
    """An engine for each schedule type that an import may have set."""
    pipeline, settings = engine.pipeline, Settings(device="cpu")
    made = {
        kind: Engine(
            replace(
                pipeline,
                scheduler_config={**pipeline.scheduler_config, "timestep_spacing": kind.value},
            ),
            settings,
            calibrate(pipeline, None, settings),
        )
        for kind in ScheduleType
    }
    yield made
    for each in made.values():
        each.close()


@pytest.mark.parametrize("own", list(ScheduleType))
async def test_the_models_own_type_is_the_default_and_a_request_may_name_another(
    engine: Engine, own_types: dict[ScheduleType, Engine], own: ScheduleType
) -> None:
    served = own_types[own]
    assert served.describe().own_schedule_type is own
    for kind in (*ScheduleType, None):
        image = await served.generate(request(schedule_type=kind))
        expected = await engine.generate(request(schedule_type=kind or own))
        assert furthest(image.pixels, expected.pixels) <= 1
        assert image.record.schedule_type is (kind or own)


@pytest.mark.parametrize("name", sorted(OWN_TIMESTEPS))
async def test_a_scheduler_with_timesteps_of_its_own_draws_the_same_for_every_model(
    own_types: dict[ScheduleType, Engine], name: SchedulerName
) -> None:
    images = [await served.generate(request(scheduler=name)) for served in own_types.values()]
    assert {image.record.schedule_type for image in images} == {None}
    assert max(furthest(images[0].pixels, image.pixels) for image in images) <= 1


async def test_ddim_refuses_a_models_own_linspace_by_field(
    own_types: dict[ScheduleType, Engine],
) -> None:
    with pytest.raises(InvalidRequestError, match="linspace, the model's own") as refusal:
        await own_types[ScheduleType.LINSPACE].generate(request(scheduler="DDIM"))
    assert refusal.value.field == "schedule_type"


# Company


@pytest.mark.thorough
async def test_jobs_of_different_types_share_unet_calls_and_each_is_as_alone(
    model_directory: Path,
) -> None:
    engine = Engine.load(model_directory, Settings(device="cpu", max_rows=64))
    requests = [
        request(scheduler=name, schedule_type=kind, num_inference_steps=4 + number % 3)
        for number, (name, kind) in enumerate(TAKEN)
    ]
    alone = [await engine.generate(one) for one in requests]
    with engine._loop.queue._changed:  # the thread can't begin until all are there
        jobs = [asyncio.ensure_future(engine.generate(one)) for one in requests]
        async with asyncio.timeout(60):
            while engine.queued_jobs < len(requests):
                await asyncio.sleep(0.005)
    shared = await asyncio.gather(*jobs)
    most = max(engine.counters.unet_calls)
    engine.close()
    assert most >= 16
    for one, many in zip(alone, shared, strict=True):
        assert furthest(one.pixels, many.pixels) <= 1, (many.record.scheduler, many.record)
