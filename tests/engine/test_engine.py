from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.engine import Engine, GeneratedImage
from lpw_sdxl.engine.calibration import calibrate
from lpw_sdxl.errors import (
    DeadlineError,
    GenerationError,
    InvalidPromptError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)
from lpw_sdxl.prompt import PromptStyle
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageSize, LoraReference
from lpw_sdxl.settings import Settings
from lpw_sdxl.weights.dtypes import CheckpointDtype
from stock_schedulers import stock_scheduler
from stores import import_here
from tests.forge.checkpoint import SyntheticSize, write_checkpoint

WORDS = ["amber", "brass", "cedar", "dawn", "ember", "fjord", "glass", "harbour", "iris", "jade"]


def words(count: int, start: int = 0) -> str:
    return " ".join(WORDS[(start + index) % len(WORDS)] for index in range(count))


MIXED = [
    {"prompt": "fox", "num_inference_steps": 5, "guidance_scale": 1.0, "seed": 1},
    {"prompt": words(60), "num_inference_steps": 30, "guidance_scale": 12.0, "seed": 2},
    {"prompt": words(400), "num_inference_steps": 12, "scheduler": "Euler a", "seed": 3},
    {"prompt": f"({words(90)}:1.3), [b]", "num_inference_steps": 9, "scheduler": "DDIM", "seed": 4},
    {"prompt": words(7), "negative_prompt": words(150), "num_inference_steps": 20, "seed": 5},
    {"prompt": "a BREAK b", "scheduler": "DPM++ 2M Karras", "guidance_scale": 8.0, "seed": 6},
    {"prompt": words(200, 3), "scheduler": "DPM++ 2M", "num_inference_steps": 16, "seed": 7},
    {"prompt": "", "num_inference_steps": 25, "guidance_rescale": 0.7, "seed": 8},
]
# Prompts and negative prompts of 77 to 231 positions, which differ within a job too.
STYLED = [
    {"prompt": words(100), "prompt_style": "a1111", "seed": 1},
    {"prompt": "(fox:1.4)", "negative_prompt": words(160), "prompt_style": "a1111", "seed": 2},
    {"prompt": f"({words(90)}:1.2)", "prompt_style": "a1111-original", "seed": 3},
    {"prompt": f"({words(160)}:0.7)", "negative_prompt": "b", "prompt_style": "comfy", "seed": 4},
    {"prompt": "a (b:1.5)", "negative_prompt": words(80), "prompt_style": "plain", "seed": 5},
    {"prompt": f"(fox:1.2) {words(60)}", "seed": 6},
    {"prompt": "fox", "prompt_style": "a1111", "guidance_scale": 1.0, "seed": 7},
    {"prompt": words(33), "negative_prompt": words(200), "seed": 8},
]


def request(**fields: Any) -> GenerationRequest:
    return GenerationRequest.model_validate({"prompt": "a", "num_inference_steps": 4} | fields)


async def together(engine: Engine, requests: list[GenerationRequest]) -> list[GeneratedImage]:
    return await asyncio.gather(*(engine.generate(request) for request in requests))


async def until(happened: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.005)


@pytest.fixture
def own_engine(model_directory: Path) -> Iterator[Engine]:
    """An engine that a test may break."""
    engine = Engine.load(model_directory, Settings(device="cpu", max_rows=4, max_queued_jobs=3))
    yield engine
    engine.close()


async def test_an_image_is_the_same_alone_and_in_company(engine: Engine) -> None:
    requests = [request(**fields) for fields in MIXED]
    alone = [await engine.generate(one) for one in requests]
    before = dict(engine.counters.unet_calls)
    shared = await together(engine, requests)
    for one, many in zip(alone, shared, strict=True):
        difference = np.abs(one.pixels.astype(int) - many.pixels.astype(int))
        assert difference.max() <= 1
    after = engine.counters.unet_calls
    calls = {jobs: count - before.get(jobs, 0) for jobs, count in after.items()}
    assert sum(count for jobs, count in calls.items() if jobs >= 4) > 0
    assert sum(calls.values()) <= 40  # the longest takes 30 steps; alone they take 147


@pytest.fixture
def cacheless_engine(model_directory: Path) -> Iterator[Engine]:
    """An engine whose cache holds no prompt."""
    engine = Engine.load(model_directory, Settings(device="cpu", conditioning_cache_bytes=0))
    yield engine
    engine.close()


@pytest.mark.thorough
async def test_styles_and_lengths_are_mixed_and_each_image_is_as_alone(
    engine: Engine, cacheless_engine: Engine
) -> None:
    requests = [request(**fields, num_inference_steps=8) for fields in STYLED]
    shared = await together(cacheless_engine, requests)
    for one, many in zip(requests, shared, strict=True):
        alone = await engine.generate(one)
        difference = np.abs(alone.pixels.astype(int) - many.pixels.astype(int))
        assert difference.max() <= 1


async def test_a_unet_call_has_a_mask_only_where_lengths_are_mixed(
    cacheless_engine: Engine,
) -> None:
    calls = []

    def keep(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        mask = keywords.get("encoder_attention_mask")
        length = keywords["encoder_hidden_states"].shape[1]
        calls.append((length, None if mask is None else mask.sum(dim=1).tolist()))

    hook = cacheless_engine.pipeline.unet.register_forward_pre_hook(keep, with_kwargs=True)
    for prompt in (words(100), "fox"):
        wanted = request(prompt=prompt, prompt_style="a1111", num_inference_steps=1)
        await cacheless_engine.generate(wanted)
    hook.remove()
    assert calls == [(154, [77, 154]), (77, None)]


@pytest.mark.parametrize("style", list(PromptStyle))
async def test_the_last_of_600_words_counts_in_every_style(
    engine: Engine, style: PromptStyle
) -> None:
    base = words(599)
    images = await together(
        engine,
        [
            request(prompt=f"{base} {end}", prompt_style=style, seed=1, num_inference_steps=2)
            for end in ("cat", "dog")
        ],
    )
    assert not np.array_equal(images[0].pixels, images[1].pixels)


async def test_cached_conditionings_are_never_changed_and_their_lookups_are_counted(
    model_directory: Path,
) -> None:
    engine = Engine.load(model_directory, Settings(device="cpu"))
    wanted = [request(**fields) for fields in STYLED]
    first = await together(engine, wanted)
    encoder = engine.pipeline.prompt_encoder
    conditionings = encoder.encode_many(
        [spec.first.prompts.pairs[0] for spec in map(engine.decide, wanted)]
    )
    cache = engine.describe().prompt_cache.conditionings
    assert (cache.hits, cache.misses, cache.entries) == (8, 8, 8)
    assert cache.bytes > 0
    copies = [[tensor.clone() for tensor in one.tensors] for one in conditionings]
    again = await together(engine, wanted)
    engine.close()
    assert engine.describe().prompt_cache.conditionings.hits == 16
    for one, copy in zip(conditionings, copies, strict=True):
        assert all(map(torch.equal, one.tensors, copy))
    for one, other in zip(first, again, strict=True):
        difference = np.abs(one.pixels.astype(int) - other.pixels.astype(int))
        assert difference.max() <= 1


async def test_the_log_counts_tokens_and_chunks_and_contains_no_text(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wanted = request(prompt="fox " * 101, negative_prompt="a b", prompt_style="a1111")
    await engine.generate(wanted)
    text = "a1111 prompt of 101 tokens in 2 chunks, negative prompt of 2 in 1"
    [line] = [record for record in caplog.records if text in record.getMessage()]
    assert line.levelno == logging.INFO
    assert "fox" not in caplog.text
    assert "truncat" not in caplog.text


async def test_all_that_waits_is_encoded_in_one_pass_of_each_encoder(own_engine: Engine) -> None:
    passes = []
    encoders = own_engine.pipeline.prompt_encoder._encoders
    hooks = [
        encoder.model.register_forward_pre_hook(
            lambda _, __, keywords: passes.append(len(keywords["input_ids"])), with_kwargs=True
        )
        for encoder in encoders
    ]
    with own_engine._loop.queue._changed:  # the thread can't begin until both are there
        jobs = [
            asyncio.ensure_future(own_engine.generate(request(prompt=words(100, start), **shared)))
            for start, shared in enumerate([{"negative_prompt": "x", "prompt_style": "a1111"}] * 2)
        ]
        await until(lambda: own_engine.queued_jobs == 2)
    await asyncio.gather(*jobs)
    for hook in hooks:
        hook.remove()
    assert passes == [5, 5]  # two windows of each prompt and the shared one


async def test_different_requests_give_different_images(engine: Engine) -> None:
    images = await together(engine, [request(**fields, width=64, height=64) for fields in MIXED])
    flat = {image.pixels.tobytes() for image in images}
    assert len(flat) == len(MIXED)


async def test_a_long_prompts_last_word_counts(engine: Engine) -> None:
    base = words(400)
    images = await together(
        engine, [request(prompt=f"{base} {end}", seed=1) for end in ("cat", "dog")]
    )
    assert not np.array_equal(images[0].pixels, images[1].pixels)


async def test_sizes_are_mixed_and_each_image_has_its_own(engine: Engine) -> None:
    sizes = [ImageSize(64, 128), ImageSize(128, 64), ImageSize(72, 104), engine.native_size]
    requests = [request(height=size.height, width=size.width, seed=1) for size in sizes]
    images = await together(engine, requests)
    assert [image.pixels.shape for image in images] == [(*size, 3) for size in sizes]


COMPANY_SIZES = [(64, 64), (64, 192), (128, 128), (192, 64)]  # height, width


@pytest.mark.thorough
async def test_sizes_guidance_company_that_leaves_and_late_comers_change_no_image(
    model_directory: Path,
) -> None:
    """Three waves: the second joins the first amid its steps, and a third of each leaves."""
    engine = Engine.load(model_directory, Settings(device="cpu", max_rows=6))
    requests = [
        request(
            **MIXED[number % len(MIXED)]
            | {"height": height, "width": width, "num_inference_steps": 6 + number % 5}
            | {"seed": 100 + number, "guidance_scale": (1.0, 5.0, 9.0)[number % 3]}
        )
        for number, (height, width) in enumerate(COMPANY_SIZES * 6)
    ]
    jobs: list[asyncio.Future[GeneratedImage]] = []
    for start in range(0, len(requests), 8):
        calls = sum(engine.counters.unet_calls.values())
        wave = requests[start : start + 8]
        jobs += [asyncio.ensure_future(engine.generate(one)) for one in wave]
        await until(lambda: sum(engine.counters.unet_calls.values()) >= calls + 4)  # noqa: B023
        for job in jobs[start : start + 8 : 3]:
            job.cancel()
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    stayed = [
        (one, end)
        for one, end in zip(requests, ends, strict=True)
        if isinstance(end, GeneratedImage)
    ]
    assert len(stayed) == len(requests) - engine.counters.left >= 15
    assert engine.counters.left >= 6
    assert max(engine.counters.unet_calls) > 1
    for one, end in stayed:
        alone = await engine.generate(one)
        assert end.pixels.shape == (one.height, one.width, 3)
        assert np.abs(alone.pixels.astype(int) - end.pixels.astype(int)).max() <= 1
    engine.close()


async def test_the_native_size_is_the_default(engine: Engine) -> None:
    image = await engine.generate(request())
    assert engine.native_size == ImageSize(128, 128)
    assert image.pixels.shape == (128, 128, 3)
    assert image.record.size == engine.native_size


async def test_a_seed_that_was_drawn_makes_the_same_image_again(engine: Engine) -> None:
    first = await engine.generate(request())
    again = await engine.generate(request(seed=first.seed))
    np.testing.assert_array_equal(first.pixels, again.pixels)


async def test_without_guidance_the_negative_prompt_does_not_matter(engine: Engine) -> None:
    images = await together(
        engine,
        [
            request(guidance_scale=1.0, seed=1, negative_prompt=negative)
            for negative in ("", "blurry")
        ],
    )
    # Equal, but for rounding: one of them may have taken its first step alone.
    assert np.abs(images[0].pixels.astype(int) - images[1].pixels.astype(int)).max() <= 1


TRAINED_FOR: dict[str, dict[str, Any]] = {
    "epsilon": {},
    "v": {"prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "v with zero SNR": {
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
    },
}
NO_ZERO_SNR = {"Heun", "LMS", "LMS Karras", "DPM++ SDE", "DPM++ SDE Karras"}


@pytest.fixture(scope="module")
def engines(engine: Engine) -> Iterator[dict[str, Engine]]:
    """An engine for each way to train a model; their weights are one model's all the same."""
    pipeline = engine.pipeline
    settings = Settings(device="cpu", max_rows=64)
    made = {
        kind: Engine(
            dataclasses.replace(
                pipeline, scheduler_config={**pipeline.scheduler_config, **differences}
            ),
            settings,
            calibrate(pipeline, None, settings),
        )
        for kind, differences in TRAINED_FOR.items()
    }
    yield made
    for each in made.values():
        each.close()


@pytest.fixture(scope="module")
def stock(model_directory: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(model_directory, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# Diffusers' DPM++ SDE passes torchsde times past the ends of its path, by rounding.
@pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning:torchsde")
@pytest.mark.parametrize(
    ("kind", "name", "guidance"),
    [
        pytest.param(
            kind,
            name,
            guidance,
            marks=() if guidance == 1 else pytest.mark.thorough,
            id=f"{kind}-{name}-{guidance}",
        )
        for kind in TRAINED_FOR
        for name in SchedulerName
        for guidance in ((1.0, 6.5) if kind == "epsilon" else (6.5,))
        if not (kind == "v with zero SNR" and name in NO_ZERO_SNR)
    ],
)
async def test_a_solo_run_equals_the_stock_pipeline(
    engines: dict[str, Engine],
    stock: StableDiffusionXLPipeline,
    kind: str,
    name: SchedulerName,
    guidance: float,
) -> None:
    engine = engines[kind]
    # LCM multiplies rounding with each of its steps, and is made for few of them.
    is_long = kind == "epsilon" and guidance > 1 and name is not SchedulerName.LCM
    steps = 15 if is_long else 6
    latents = []

    def keep(module: Any, arguments: tuple[torch.Tensor]) -> None:
        latents.append(arguments[0] * engine.pipeline.vae.config.scaling_factor)

    wanted = request(
        prompt=f"({words(80)}:1.2)",
        negative_prompt="blurry",
        scheduler=name.value,
        num_inference_steps=steps,
        guidance_scale=guidance,
        guidance_rescale=0.3 if guidance > 1 else 0.0,
        seed=11,
        height=96,
        width=64,
    )
    hook = engine.pipeline.vae.post_quant_conv.register_forward_pre_hook(keep)
    await engine.generate(wanted)
    hook.remove()
    stock.scheduler = stock_scheduler(name, engine.pipeline.scheduler_config, seed=11)
    embeds = engine.pipeline.prompt_encoder.encode(wanted.prompt, wanted.negative_prompt)
    generator = seeded_generator(11)
    expected = stock(
        prompt_embeds=embeds.prompt_embeds[None],
        negative_prompt_embeds=embeds.negative_prompt_embeds[None],
        pooled_prompt_embeds=embeds.pooled_prompt_embeds[None],
        negative_pooled_prompt_embeds=embeds.negative_pooled_prompt_embeds[None],
        latents=draw_noise(ImageSize(96, 64), generator),
        generator=generator,
        height=96,
        width=64,
        num_inference_steps=steps,
        guidance_scale=guidance,
        guidance_rescale=wanted.guidance_rescale,
        # The pipeline turns off whatever noise `eta` scales; the TCD scheduler's own is 0.3.
        eta=0.3 if name is SchedulerName.TCD else 0.0,
        output_type="latent",
    ).images
    assert (latents[0] - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.thorough
@pytest.mark.parametrize("kind", TRAINED_FOR)
async def test_all_schedulers_in_one_call_draw_what_each_draws_alone(
    engines: dict[str, Engine], kind: str
) -> None:
    engine = engines[kind]
    names = engine.describe().schedulers
    assert set(names) == set(SchedulerName) - (NO_ZERO_SNR if "zero" in kind else set())
    requests = [
        request(
            scheduler=name,
            seed=seed,
            num_inference_steps=4 + seed % 5,
            prompt=words(9, seed),
            height=72,
            width=64,
        )
        for seed, name in enumerate(names)
    ]
    alone = [await engine.generate(one) for one in requests]
    with engine._loop.queue._changed:  # the thread can't begin until all are there
        jobs = [asyncio.ensure_future(engine.generate(one)) for one in requests]
        await until(lambda: engine.queued_jobs == len(requests))
    shared = await asyncio.gather(*jobs)
    assert engine.counters.unet_calls[len(names)] >= 4
    for one, many in zip(alone, shared, strict=True):
        difference = np.abs(one.pixels.astype(int) - many.pixels.astype(int))
        assert difference.max() <= 1, one.record.scheduler


async def test_a_scheduler_that_cannot_sample_the_model_is_refused_by_field(
    engines: dict[str, Engine],
) -> None:
    engine = engines["v with zero SNR"]
    for name in NO_ZERO_SNR:
        with pytest.raises(InvalidRequestError, match="zero terminal SNR") as refusal:
            await engine.generate(request(scheduler=name))
        assert refusal.value.field == "scheduler"


async def test_a_short_job_overtakes_a_long_one_that_came_first(engine: Engine) -> None:
    long = asyncio.ensure_future(engine.generate(request(num_inference_steps=50)))
    await until(lambda: engine.queued_jobs == 1)
    await engine.generate(request(num_inference_steps=2))
    assert not long.done()
    await long


async def test_a_caller_that_leaves_frees_its_place(engine: Engine) -> None:
    left = engine.counters.left
    leaving = asyncio.ensure_future(engine.generate(request(num_inference_steps=150)))
    await until(lambda: engine.queued_jobs == 1)
    leaving.cancel()
    await until(lambda: engine.counters.left == left + 1)
    assert engine.queued_jobs == 0


async def test_a_deadline_that_passes_ends_the_job(engine: Engine) -> None:
    images = engine.counters.images
    with pytest.raises(DeadlineError):
        await engine.generate(request(num_inference_steps=150, deadline_s=0.1))
    assert engine.counters.images == images
    assert engine.queued_jobs == 0


LONG_WORDS = "photorealistic " * 1400  # 21,000 characters in few tokens

REFUSED = {
    "LoRA": ({"loras": [LoraReference(name="foo")]}, InvalidRequestError, "loras.0.name"),
    "LoRA tag": ({"prompt": "a <lora:foo:1>"}, InvalidRequestError, "prompt"),
    "weight": ({"negative_prompt": "(a:1000)"}, InvalidPromptError, "negative_prompt"),
    "depth": ({"prompt": "(" * 65 + "a"}, InvalidPromptError, "prompt"),
    "chunks": ({"prompt": "a BREAK " * 65}, InvalidPromptError, "prompt"),
    "empty chunks": (
        {"prompt": "BREAK " * 65, "prompt_style": "a1111"},
        InvalidPromptError,
        "prompt",
    ),
    "the second encoder's tokens": ({"prompt": "!" * 4801}, InvalidPromptError, "prompt"),
    "tokens": ({"negative_prompt": "a " * 4801}, InvalidPromptError, "negative_prompt"),
    "JPEG": (
        {"prompt": LONG_WORDS, "negative_prompt": LONG_WORDS, "image_format": "jpeg"},
        InvalidRequestError,
        "image_format",
    ),
    "steps": ({"num_inference_steps": 151}, InvalidRequestError, "num_inference_steps"),
    "steps of LCM": (
        {"scheduler": "LCM", "num_inference_steps": 51},
        InvalidRequestError,
        "num_inference_steps",
    ),
    "clip_skip": ({"clip_skip": 30}, InvalidRequestError, "clip_skip"),
}


@pytest.mark.parametrize(("fields", "error", "field"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_request_at_fault_is_refused_before_it_is_queued(
    engine: Engine, fields: dict[str, Any], error: type[InvalidRequestError], field: str
) -> None:
    with pytest.raises(error) as refusal:
        await engine.generate(request(**fields))
    assert refusal.value.field == field
    assert engine.queued_jobs == 0


async def test_a_full_queue_answers_with_retry_after(own_engine: Engine) -> None:
    jobs = [
        asyncio.ensure_future(own_engine.generate(request(num_inference_steps=20)))
        for _ in range(3)
    ]
    await until(lambda: own_engine.queued_jobs == 3)
    with pytest.raises(OverloadedError) as refusal:
        await own_engine.generate(request())
    assert refusal.value.retry_after_s >= 1
    await asyncio.gather(*jobs)
    await own_engine.generate(request())


async def test_an_error_in_a_shared_unet_call_fails_only_the_job_at_fault(
    own_engine: Engine,
) -> None:
    """The real UNet raises whenever the noise of seed 666 is among its rows."""
    noise = draw_noise(ImageSize(128, 128), seeded_generator(666))

    rows_of_failed_calls = []

    def fail(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        if bool((keywords["sample"] == noise).flatten(1).all(1).any()):
            rows_of_failed_calls.append(len(keywords["sample"]))
            raise RuntimeError("out of luck")

    hook = own_engine.pipeline.unet.register_forward_pre_hook(fail, with_kwargs=True)
    # DDIM's first model input is the noise itself, so that the hook recognises it.
    requests = [request(seed=seed, scheduler="DDIM") for seed in (1, 666)]
    with own_engine._loop.queue._changed:  # the thread can't begin until both are there
        jobs = [asyncio.ensure_future(own_engine.generate(one)) for one in requests]
        await until(lambda: own_engine.queued_jobs == 2)
    results = await asyncio.gather(*jobs, return_exceptions=True)
    hook.remove()
    assert rows_of_failed_calls == [4, 2]  # together, then alone
    assert isinstance(results[1], GenerationError)
    assert isinstance(results[0], GeneratedImage)
    alone = await own_engine.generate(requests[0])
    assert np.abs(alone.pixels.astype(int) - results[0].pixels.astype(int)).max() <= 1
    assert own_engine.queued_jobs == 0


async def test_a_diverged_image_is_an_error_and_not_a_black_picture(own_engine: Engine) -> None:
    def spoil(module: Any, arguments: Any, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (output[0] * float("nan"),)

    hook = own_engine.pipeline.unet.register_forward_hook(spoil)
    with pytest.raises(GenerationError, match="not finite"):
        await own_engine.generate(request())
    hook.remove()
    await own_engine.generate(request())


async def test_closing_finishes_what_was_accepted_and_takes_no_more(own_engine: Engine) -> None:
    accepted = asyncio.ensure_future(own_engine.generate(request(num_inference_steps=20)))
    await until(lambda: own_engine.queued_jobs == 1)
    await asyncio.to_thread(own_engine.close)
    assert (await accepted).pixels.shape == (128, 128, 3)
    assert not own_engine.is_alive
    with pytest.raises(UnavailableError):
        await own_engine.generate(request())


@pytest.mark.thorough
async def test_a_half_precision_model_draws_nearly_the_same(engine: Engine, tmp_path: Path) -> None:
    """The demo's weights in float16, as a real checkpoint's are by default; the VAE in float32."""
    file = tmp_path / "demo.safetensors"
    write_checkpoint(
        file, SyntheticSize.TINY, dtype=CheckpointDtype.FLOAT32, native_size=ImageSize(128, 128)
    )
    tag = import_here(tmp_path / "home", "checkpoint", str(file))
    directory = tmp_path / "home" / "models" / Path(*tag.split(":"))
    half = Engine.load(directory, Settings(device="cpu"))
    wanted = request(prompt=words(100), num_inference_steps=8, seed=3)
    images = [await one.generate(wanted) for one in (engine, half)]
    half.close()
    assert half.pipeline.unet.dtype == torch.float16
    assert half.pipeline.vae.dtype == torch.float32
    difference = np.abs(images[0].pixels.astype(int) - images[1].pixels.astype(int))
    assert difference.mean() < 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
async def test_the_gpu_draws_nearly_what_the_cpu_draws(
    engine: Engine, model_directory: Path
) -> None:
    on_gpu = Engine.load(model_directory, Settings(device="cuda"))
    wanted = [request(**fields) for fields in MIXED]
    expected = await together(engine, wanted)
    images = await together(on_gpu, wanted)
    on_gpu.close()
    for one, other in zip(expected, images, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).mean() < 2


async def test_a_thread_that_dies_leaves_no_caller_waiting(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_policy(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("lpw_sdxl.engine.policy.admit", break_policy)
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(own_engine.generate(request()), 10)
    assert not own_engine.is_alive


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
async def test_replayed_calls_draw_what_launched_ones_draw(model_directory: Path) -> None:
    wanted = request(prompt=words(100), num_inference_steps=12, seed=3)
    images = []
    for uses_graphs in (True, False):
        engine = Engine.load(model_directory, Settings(device="cuda", cuda_graphs=uses_graphs))
        assert bool(engine.plan.graph_pixels) is uses_graphs
        images.append(await engine.generate(wanted))
        engine.close()
    difference = np.abs(images[0].pixels.astype(int) - images[1].pixels.astype(int))
    assert difference.max() <= 1
