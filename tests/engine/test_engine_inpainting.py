"""An inpainting model in the engine: without a picture, all is masked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLInpaintPipeline

from lpw_sdxl.diffusion.latents import seeded_generator
from lpw_sdxl.engine import Engine
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings
from stock_schedulers import stock_scheduler
from stores import import_here

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def directory(inpainting_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("inpainting")
    tag = import_here(home, "checkpoint", str(inpainting_checkpoint), "--dtype", "fp32")
    return home / "models" / Path(*tag.split(":"))


@pytest.fixture(scope="module")
def inpainting_engine(directory: Path) -> Iterator[Engine]:
    engine = Engine.load(directory, Settings(device="cpu"))
    yield engine
    engine.close()


def request(**fields: Any) -> GenerationRequest:
    common = {"prompt": "a (fox:1.2)", "num_inference_steps": 4, "seed": 3}
    return GenerationRequest.model_validate(common | {"height": 96, "width": 64} | fields)


REQUESTS = [
    {},
    {"scheduler": "Heun", "guidance_scale": 1.0},
    {"prompt": "a fox, " * 40, "scheduler": "Euler a", "seed": 4},
    {"width": 96, "height": 64, "seed": 5},
    {"num_inference_steps": 7, "scheduler": "DPM++ 2M Karras"},
]


async def draw(engine: Engine, fields: dict[str, Any]) -> np.ndarray[Any, Any]:
    return (await engine.generate(request(**fields))).pixels.astype(int)


@pytest.mark.parametrize("name", [SchedulerName.EULER_ANCESTRAL, SchedulerName.DPMPP_2M])
async def test_a_text_is_drawn_as_diffusers_repaints_all_of_a_picture(
    inpainting_engine: Engine, directory: Path, name: SchedulerName
) -> None:
    wanted = request(scheduler=name)
    image = await inpainting_engine.generate(wanted)
    stock = StableDiffusionXLInpaintPipeline.from_pretrained(directory, local_files_only=True)
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = stock_scheduler(name, inpainting_engine.pipeline.scheduler_config, 3)
    embeds = inpainting_engine.pipeline.prompt_encoder.encode(wanted.prompt, "")
    expected = stock(
        prompt_embeds=embeds.prompt_embeds[None],
        negative_prompt_embeds=embeds.negative_prompt_embeds[None],
        pooled_prompt_embeds=embeds.pooled_prompt_embeds[None],
        negative_pooled_prompt_embeds=embeds.negative_pooled_prompt_embeds[None],
        image=torch.rand(1, 3, 96, 64),  # of which nothing is seen
        mask_image=torch.ones(1, 1, 96, 64),
        strength=1.0,
        num_inference_steps=4,
        guidance_scale=wanted.guidance_scale,
        generator=seeded_generator(3),
        output_type="np",
        height=96,
        width=64,
    ).images[0]
    levels = (expected * 255).round().astype(int)
    assert np.abs(image.pixels.astype(int) - levels).max() <= 1


async def test_among_others_every_image_is_what_it_is_alone(inpainting_engine: Engine) -> None:
    alone = [await draw(inpainting_engine, fields) for fields in REQUESTS]
    together = await asyncio.gather(*(draw(inpainting_engine, fields) for fields in REQUESTS))
    assert max(np.abs(a - b).max() for a, b in zip(alone, together, strict=True)) <= 1


async def test_the_description_says_that_the_unet_sees_masks(inpainting_engine: Engine) -> None:
    assert inpainting_engine.describe().model.inpainting


async def test_components_that_take_turns_draw_the_same(directory: Path) -> None:
    engine = Engine.load(directory, Settings(device="cpu"))
    offloaded = Engine.load(directory, Settings(device="cpu", offload="always"))
    try:
        images = [await draw(one, REQUESTS[0]) for one in (engine, offloaded)]
    finally:
        engine.close()
        offloaded.close()
    assert np.abs(images[0] - images[1]).max() <= 1
