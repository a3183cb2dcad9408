"""What a request of k-diffusion's family may choose beside its sampler, against plain loops."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from PIL import Image

from gathered import begin_together
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.calibration import calibrate
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings
from plain_painter import Picture, PlainPainter, watch_timesteps
from tests.forge.scenes import Pixels, draw_mask, draw_picture, furthest, to_file

SIZE = ImageSize(64, 96)
PIXELS, MASK = draw_picture(SIZE, 3), draw_mask(SIZE)
CELLS = np.asarray(Image.fromarray(MASK).resize((12, 8), Image.Resampling.BICUBIC)) >= 128
Texts = Callable[[int], str]


def request(sampler: str, schedule: str | None = None, **fields: Any) -> GenerationRequest:
    common = {
        "prompt": "a (fox:1.2)",
        "negative_prompt": "blurry",
        "prompt_style": "a1111",
        "sampler_implementation": "k_diffusion",
        "scheduler": sampler,
        "schedule_type": schedule,
        "num_inference_steps": 6,
        "guidance_scale": 4.0,
        "seed": 5,
    }
    return GenerationRequest.model_validate(common | SIZE._asdict() | fields)


@pytest.fixture(scope="module")
def plain_unet(model_directory: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(model_directory / "unet", local_files_only=True)


async def compare(
    engine: Engine,
    unet: Any,
    wanted: GenerationRequest,
    picture: Picture | None = None,
    texts: Texts | None = None,
) -> Pixels:
    """Draw with the engine, and check it against the reference."""
    with watch_timesteps(engine) as timesteps:
        drawn = (await engine.generate(wanted)).pixels
    sampler, schedule = str(wanted.scheduler), str(wanted.schedule_type or "Automatic")
    by_hand = PlainPainter(engine, unet).draw(wanted, sampler, schedule, picture, texts)
    assert furthest(drawn, by_hand.pixels) <= 1
    assert timesteps == pytest.approx(by_hand.timesteps, abs=1e-3)
    return drawn


NOISE_CASES = {
    "noise of an NVIDIA card": ("Euler a", None, {"noise_source": "nv"}),
    "a path of an NVIDIA card": ("DPM++ 2M SDE Heun", None, {"noise_source": "nv"}),
    "variation": ("Euler", None, {"variation_seed": 99, "variation_strength": 0.4}),
    "variation of nv": (
        "DPM2 a",
        None,
        {"variation_seed": 99, "variation_strength": 0.4, "noise_source": "nv"},
    ),
    "another seed for ancestral noise": ("Euler a", None, {"eta_noise_seed_delta": 31337}),
    "another seed for midpoints": ("DPM2 a", "Karras", {"eta_noise_seed_delta": 31337}),
    "another seed for DDIM": ("DDIM", None, {"eta_noise_seed_delta": 31337, "eta": 1.0}),
    "no ancestral noise": ("Euler a", "Karras", {"eta": 0.0}),
    "half of the ancestral noise": ("DPM++ 2S a", None, {"eta": 0.5}),
    "no Brownian noise": ("DPM++ 2M SDE", None, {"eta": 0.0}),
    "half of the Brownian noise": ("DPM++ SDE", None, {"eta": 0.5}),
    "half of it at order 3": ("DPM++ 3M SDE", None, {"eta": 0.5}),
    "half of the noise of DDIM": ("DDIM", None, {"eta": 0.5}),
    "a restart": ("Restart", "Uniform", {"num_inference_steps": 20}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", NOISE_CASES)
async def test_a_choice_changes_the_picture_as_in_a_plain_loop(
    engine: Engine, plain_unet: Any, case: str
) -> None:
    sampler, schedule, fields = NOISE_CASES[case]
    drawn = await compare(engine, plain_unet, request(sampler, schedule, **fields))
    if sampler != "Restart":
        without = await engine.generate(request(sampler, schedule))
        assert furthest(drawn, without.pixels) > 8


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DPM2", "DPM++ SDE"])
async def test_the_unet_sees_whole_timesteps_where_they_are_to_be_nearest(
    engine: Engine, plain_unet: Any, sampler: str
) -> None:
    wanted = request(sampler, "Karras", timestep_rounding="nearest")
    with watch_timesteps(engine) as timesteps:
        await compare(engine, plain_unet, wanted)
    assert all(timestep == round(timestep) for timestep in timesteps)


TRAINED_FOR = {
    "v": {"prediction_type": "v_prediction"},
    "v with zero SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}


@pytest.fixture(scope="module", params=TRAINED_FOR)
def v_engine(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Engine]:
    """An engine whose UNet predicts velocity, or noise that is taken for it."""
    pipeline, settings = engine.pipeline, Settings(device="cpu")
    config = {**pipeline.scheduler_config, **TRAINED_FOR[request.param]}
    pipeline = dataclasses.replace(pipeline, scheduler_config=config)
    made = Engine(pipeline, settings, calibrate(pipeline, None, settings))
    yield made
    made.close()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [
        ("Euler a", "Karras"),
        ("Heun", "SGM Uniform"),
        ("DPM++ SDE", "Exponential"),
        ("DPM++ 3M SDE", "Karras"),
        ("DDIM", None),
        ("UniPC", None),
    ],
)
async def test_a_model_of_velocity_is_sampled_as_in_a_plain_loop(
    v_engine: Engine, plain_unet: Any, sampler: str, schedule: str | None
) -> None:
    await compare(v_engine, plain_unet, request(sampler, schedule))


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", ["DPM++ 2M", "DDIM"])
async def test_a_part_of_a_picture_is_repainted_by_a_model_of_velocity(
    v_engine: Engine, plain_unet: Any, sampler: str
) -> None:
    fields = {"image": to_file(PIXELS), "mask_image": to_file(MASK), "paste_back": False}
    wanted = request(sampler, strength=0.8, **fields)
    await compare(v_engine, plain_unet, wanted, Picture(PIXELS, CELLS))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("sampler", "content"),
    [
        *(("Euler a", content) for content in ("original", "latent_noise", "latent_nothing")),
        *(("DDIM", content) for content in ("original", "latent_noise", "latent_nothing")),
        *((sampler, "latent_noise") for sampler in ("DPM2", "PLMS", "UniPC")),
    ],
)
async def test_a_part_is_repainted_as_in_a_plain_loop(
    engine: Engine, plain_unet: Any, sampler: str, content: str
) -> None:
    assert 0 < CELLS.sum() < CELLS.size
    wanted = request(
        sampler,
        image=to_file(PIXELS),
        mask_image=to_file(MASK),
        masked_content=content,
        strength=0.8,
        paste_back=False,
    )
    await compare(engine, plain_unet, wanted, Picture(PIXELS, CELLS))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("sampler", "prompt", "steps", "red_calls", "fields"),
    [
        ("Euler", "a [red:blue:4] fox", 8, 5, {}),
        ("DDIM", "a [red:blue:4] fox", 8, 5, {}),
        ("Heun", "a [red:blue:4] fox", 5, 5, {}),
        ("DPM++ SDE", "a [red:blue:0.5] fox", 4, 5, {}),
        ("DPM++ 2M", "a [red:blue:4] fox", 8, 5, {"image": to_file(PIXELS), "strength": 0.8}),
        ("Euler a", "a [red:blue:0] fox", 4, 0, {}),
    ],
)
async def test_a_text_holds_for_one_call_more_as_in_a1111(
    engine: Engine,
    plain_unet: Any,
    sampler: str,
    prompt: str,
    steps: int,
    red_calls: int,
    fields: dict[str, Any],
) -> None:
    """A1111 looks a call's text up by the calls done before: step 4 is the fifth call."""
    await compare(
        engine,
        plain_unet,
        request(sampler, prompt=prompt, num_inference_steps=steps, **fields),
        Picture(PIXELS) if fields else None,
        lambda call: "a red fox" if call < red_calls else "a blue fox",
    )


async def test_an_alternation_begins_with_its_first_text_twice(
    engine: Engine, plain_unet: Any
) -> None:
    wanted = request("Euler", prompt="a [red|blue|green] fox")
    texts = [f"a {colour} fox" for colour in ("red", "red", "blue", "green", "red", "blue")]
    await compare(engine, plain_unet, wanted, texts=lambda call: texts[call])


@pytest.mark.thorough
@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M SDE", "Heun", "UniPC"])
async def test_a_strength_of_0_takes_one_nearly_empty_step(
    engine: Engine, plain_unet: Any, sampler: str
) -> None:
    wanted = request(sampler, image=to_file(PIXELS), strength=0.0)
    assert engine.decide(wanted).unet_calls == 1
    await compare(engine, plain_unet, wanted, Picture(PIXELS))


@pytest.mark.thorough
async def test_a_job_that_is_cancelled_leaves_the_others_as_they_are(engine: Engine) -> None:
    samplers = ["DPM++ 2M SDE", "Heun", "Euler a", "DDIM"]
    wanted = [request(name, num_inference_steps=8) for name in samplers]
    alone = [(await engine.generate(one)).pixels for one in wanted[1:]]
    counters = engine.counters
    left, calls = counters.left, sum(counters.unet_calls.values())
    jobs = await begin_together(engine, wanted)
    async with asyncio.timeout(60):
        while sum(counters.unet_calls.values()) < calls + 2:
            await asyncio.sleep(0.001)
    jobs[0].cancel()
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert counters.left == left + 1
    for pixels, end in zip(alone, ends[1:], strict=True):
        assert not isinstance(end, BaseException)
        assert furthest(pixels, end.pixels) <= 1


PICTURE = {"image": to_file(PIXELS)}


@pytest.mark.parametrize(
    ("sampler", "schedule", "fields", "field", "message"),
    [
        ("DDIM", None, {"num_inference_steps": 1}, "num_inference_steps", "at least 2 would"),
        ("PLMS", None, {"num_inference_steps": 1}, "num_inference_steps", "at least 2 would"),
        (
            "DDIM",
            None,
            {"num_inference_steps": 2, "strength": 1.0, **PICTURE},
            "num_inference_steps",
            "at least 3 would",
        ),
        ("DDIM", None, {"strength": 0.3, **PICTURE}, "strength", "at least 0.334 would"),
        ("PLMS", None, {"strength": 0.0, **PICTURE}, "strength", "none of 6 steps"),
        ("DDIM", "Karras", {}, "schedule_type", "Automatic or null"),
        ("Euler", None, {"eta": 0.5}, "eta", "which has none"),
        ("Restart", None, {"eta": 1.0}, "eta", "which has none"),
        ("DPM++ 2M Karras", "Exponential", {}, "schedule_type", "names another one"),
    ],
)
def test_what_a_sampler_can_not_do_is_refused_by_field(
    engine: Engine,
    sampler: str,
    schedule: str | None,
    fields: dict[str, Any],
    field: str,
    message: str,
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refusal:
        engine.decide(request(sampler, schedule, **fields))
    assert refusal.value.field == field


def test_the_strength_that_a_refusal_names_is_taken(engine: Engine) -> None:
    assert engine.decide(request("DDIM", strength=0.334, **PICTURE)).unet_calls == 1
    few = request("DDIM", strength=1.0, num_inference_steps=3, **PICTURE)
    assert engine.decide(few).unet_calls == 1
