"""The loop with a real model whose calls are made to fail or to wait."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine import Engine, GeneratedImage, ImageProgress, Listener
from lpw_sdxl.engine.calibration import calibrate
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.memory import MemoryPlan
from lpw_sdxl.errors import GenerationError, OutOfMemoryError, UnavailableError
from lpw_sdxl.schema import GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings
from moves import record_moves

SIZE = ImageSize(64, 64)
PIXELS = SIZE.height * SIZE.width


def request(**fields: Any) -> GenerationRequest:
    wanted = {"prompt": "a", "num_inference_steps": 4, "height": 64, "width": 64, "seed": 1}
    return GenerationRequest.model_validate(wanted | fields)


def assert_alike(one: GeneratedImage, other: GeneratedImage) -> None:
    assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """Keep the loop from beginning jobs, so that all requests of the block begin together."""
    with engine._loop.queue._changed:
        yield


async def together(engine: Engine, requests: list[GenerationRequest]) -> list[Any]:
    with held(engine):
        jobs = [asyncio.ensure_future(engine.generate(one)) for one in requests]
        async with asyncio.timeout(30):
            while engine.queued_jobs < len(requests):
                await asyncio.sleep(0.005)
    return await asyncio.gather(*jobs, return_exceptions=True)


@contextmanager
def before_each_unet_call(engine: Engine, act: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Act on the latents of each UNet call, `[rows, 4, h, w]`, before it is made."""
    hook = engine.pipeline.unet.register_forward_pre_hook(
        lambda _, __, keywords: act(keywords["sample"]), with_kwargs=True
    )
    yield
    hook.remove()


def lack_memory_above(rows: int) -> Callable[[torch.Tensor], None]:
    def act(sample: torch.Tensor) -> None:
        if len(sample) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return act


@pytest.fixture
def own_engine(model_directory: Path) -> Iterator[Engine]:
    """An engine that a test may break, for eight rows of 128 x 128."""
    engine = Engine.load(model_directory, Settings(device="cpu", max_rows=8))
    yield engine
    engine.close()


def capacity(engine: Engine, size: ImageSize = ImageSize(128, 128)) -> int:  # noqa: B008 - frozen
    return engine._loop._capacity.row_limit(size)


@pytest.mark.thorough
async def test_a_lack_of_memory_shrinks_a_call_and_calls_that_go_well_let_it_grow(
    own_engine: Engine,
) -> None:
    requests = [request(seed=seed, height=128, width=128) for seed in range(4)]
    alone = [await own_engine.generate(one) for one in requests]
    assert capacity(own_engine) == 8
    rows: list[int] = []
    with (
        before_each_unet_call(own_engine, lambda sample: rows.append(len(sample))),
        before_each_unet_call(own_engine, lack_memory_above(4)),
    ):
        images = await together(own_engine, requests)
    for one, image in zip(alone, images, strict=True):
        assert_alike(one, image)
    assert rows[0] == 8
    assert max(rows[1:]) == 4  # once is enough to know it
    assert own_engine.counters.out_of_memory == 1
    assert 4 <= capacity(own_engine) < 6
    await own_engine.generate(request(num_inference_steps=75))
    assert capacity(own_engine) == 8
    assert own_engine.counters.failed == 0


@pytest.mark.thorough
async def test_an_image_that_lacks_memory_row_by_row_fails_alone(own_engine: Engine) -> None:
    def large_ones_lack(sample: torch.Tensor) -> None:
        if sample.shape[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")

    rows: list[int] = []
    with (
        before_each_unet_call(own_engine, large_ones_lack),
        before_each_unet_call(own_engine, lambda sample: rows.append(len(sample))),
    ):
        small, large = await together(own_engine, [request(), request(height=128, width=128)])
    assert isinstance(large, OutOfMemoryError)
    assert isinstance(small, GeneratedImage)
    await own_engine.generate(request(height=128, width=128))


async def test_only_a_lack_in_a_unet_call_shrinks_calls(own_engine: Engine) -> None:
    def fail(sample: torch.Tensor) -> None:
        raise RuntimeError("odd")

    with before_each_unet_call(own_engine, fail), pytest.raises(GenerationError):
        await own_engine.generate(request())
    lacks = [True]

    def lack_once(*_: Any) -> None:
        if lacks:
            lacks.clear()
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = own_engine.pipeline.vae.decoder.register_forward_pre_hook(lack_once)
    await own_engine.generate(request())  # decoded at the second try
    hook.remove()
    assert own_engine.counters.out_of_memory == 1
    assert capacity(own_engine) == 8


@contextmanager
def planned(model_directory: Path, settings: Settings, **changed: Any) -> Iterator[Engine]:
    """An engine whose plan is another than the CPU's."""
    pipeline = Pipeline.load(model_directory, torch.device("cpu"), Settings())
    plan: MemoryPlan = dataclasses.replace(calibrate(pipeline, None, settings), **changed)
    engine = Engine(pipeline, settings, plan)
    yield engine
    engine.close()


async def test_where_one_row_fits_two_rows_are_two_calls(
    engine: Engine, model_directory: Path
) -> None:
    requests = [request(seed=seed, guidance_scale=scale) for seed, scale in [(1, 7.0), (2, 1.0)]]
    expected = [await engine.generate(one) for one in requests]
    rows: list[int] = []
    with (
        planned(model_directory, Settings(device="cpu"), max_rows=1, call_pixels=PIXELS) as narrow,
        before_each_unet_call(narrow, lambda sample: rows.append(len(sample))),
    ):
        images = await together(narrow, requests)
    for one, image in zip(expected, images, strict=True):
        assert_alike(one, image)
    assert rows == [1] * (4 * 2 + 4 * 1)


async def test_a_job_is_removed_before_its_caller_has_the_image(own_engine: Engine) -> None:
    seen: list[tuple[int, int]] = []
    job = Job(own_engine.decide(request()), time.monotonic())
    job.future.add_done_callback(
        lambda _: seen.append((own_engine.queued_jobs, own_engine.counters.images))
    )
    own_engine._loop.queue.put(job)
    await asyncio.wrap_future(job.future)
    assert seen == [(0, 1)]


@pytest.fixture
def hanging(own_engine: Engine) -> Iterator[tuple[Engine, threading.Event, threading.Event]]:
    """An engine whose UNet waits, the event that it does so, and the event that ends the wait."""
    waits, may_go = threading.Event(), threading.Event()

    def wait(sample: torch.Tensor) -> None:
        waits.set()
        may_go.wait(30)

    with before_each_unet_call(own_engine, wait):
        yield own_engine, waits, may_go
        may_go.set()
        own_engine._loop._thread.join(30)


async def test_closing_finishes_what_waits_and_what_is_under_way(
    hanging: tuple[Engine, threading.Event, threading.Event],
) -> None:
    engine, waits, may_go = hanging
    under_way = asyncio.ensure_future(engine.generate(request()))
    await asyncio.to_thread(waits.wait, 30)
    waiting = asyncio.ensure_future(engine.generate(request(seed=2)))
    while engine.queued_jobs < 2:
        await asyncio.sleep(0.005)
    closing = asyncio.ensure_future(asyncio.to_thread(engine.close))
    while engine.is_alive:
        await asyncio.sleep(0.005)
    with pytest.raises(UnavailableError):
        await engine.generate(request())
    may_go.set()
    images = await asyncio.gather(under_way, waiting)
    await closing
    assert [image.seed for image in images] == [1, 2]
    assert not engine._loop._thread.is_alive()


async def test_closing_answers_the_jobs_that_are_left_when_time_is_up(
    hanging: tuple[Engine, threading.Event, threading.Event],
) -> None:
    engine, waits, _ = hanging
    under_way = asyncio.ensure_future(engine.generate(request()))
    await asyncio.to_thread(waits.wait, 30)
    waiting = asyncio.ensure_future(engine.generate(request(seed=2)))
    while engine.queued_jobs < 2:
        await asyncio.sleep(0.005)
    started = time.monotonic()
    await asyncio.to_thread(engine.close, 0.2)
    assert time.monotonic() - started < 5
    results = await asyncio.gather(under_way, waiting, return_exceptions=True)
    assert [type(one) for one in results] == [UnavailableError] * 2


# Progress.


async def listen(
    engine: Engine, wanted: GenerationRequest, wants_previews: bool = False
) -> tuple[GeneratedImage, list[ImageProgress]]:
    reported: list[ImageProgress] = []
    image = await engine.generate(wanted, Listener(reported.append, lambda _: wants_previews))
    return image, reported


async def test_a_listener_is_called_after_every_unet_call_in_order(engine: Engine) -> None:
    _, reported = await listen(engine, request(num_inference_steps=6))
    assert reported == [ImageProgress(done, 6) for done in range(1, 7)]


async def test_previews_are_an_eighth_of_the_image_and_change_nothing(engine: Engine) -> None:
    wanted = request(num_inference_steps=5, height=64, width=96)
    image, reported = await listen(engine, wanted, wants_previews=True)
    assert [one.unet_calls_done for one in reported] == [1, 2, 3, 4, 5]
    *previews, last = [one.preview for one in reported]
    assert last is None  # the image itself follows
    for preview in previews:
        assert preview is not None
        with Image.open(io.BytesIO(preview.encode())) as picture:
            assert (picture.format, picture.size) == ("JPEG", (12, 8))
            assert preview.encode() is preview.encode()  # made once
    assert_alike(image, await engine.generate(wanted))


async def test_a_listener_that_fails_harms_no_image(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    reported: list[ImageProgress] = []

    def fail(progress: ImageProgress) -> None:
        reported.append(progress)
        raise RuntimeError("a listener's own fault")

    image = await engine.generate(request(), Listener(fail))
    assert len(reported) == 1  # it is not called again
    assert "a listener's own fault" in caplog.text
    assert_alike(image, await engine.generate(request()))


async def test_previews_that_fail_spoil_neither_image_nor_progress(own_engine: Engine) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no preview")

    hook = own_engine.pipeline.vae.decoder.register_forward_pre_hook(fail)

    reported: list[ImageProgress] = []

    def on_progress(progress: ImageProgress) -> None:
        reported.append(progress)
        hook.remove()  # only the previews fail

    await own_engine.generate(request(), Listener(on_progress, lambda _: True))
    assert reported == [ImageProgress(done, 4) for done in range(1, 5)]
    _, reported_later = await listen(own_engine, request(), wants_previews=True)
    assert [one.preview is not None for one in reported_later] == [True] * 3 + [False]


async def test_the_listener_of_a_failed_job_is_not_called_again(own_engine: Engine) -> None:
    def fail(sample: torch.Tensor) -> None:
        raise RuntimeError("odd")

    reported: list[ImageProgress] = []
    with before_each_unet_call(own_engine, fail), pytest.raises(GenerationError):
        await own_engine.generate(request(), Listener(reported.append))
    await own_engine.generate(request())  # the turn in which it failed is over
    assert reported == []


# One component at a time.


@pytest.fixture
def offloading(model_directory: Path) -> Iterator[Engine]:
    engine = Engine.load(model_directory, Settings(device="cpu", offload="always"))
    yield engine
    engine.close()


@pytest.mark.thorough
async def test_offloading_changes_no_image(engine: Engine, offloading: Engine) -> None:
    requests = [
        request(seed=1, prompt="fox " * 100),
        request(seed=2, num_inference_steps=9, guidance_scale=1.0),
        request(seed=3, num_inference_steps=2, scheduler="Euler a"),
        request(seed=4, height=128, width=64, negative_prompt="b " * 90, prompt_style="a1111"),
    ]
    assert offloading.plan.is_offloading
    images = await together(offloading, requests)
    later = await asyncio.gather(*(offloading.generate(one) for one in requests))
    for wanted, image, again in zip(requests, images, later, strict=True):
        expected = await engine.generate(wanted)
        assert_alike(expected, image)
        assert_alike(expected, again)


async def test_components_are_not_moved_at_each_step(offloading: Engine) -> None:
    moved = record_moves(offloading)
    images = await together(
        offloading, [request(seed=seed, num_inference_steps=10) for seed in range(5)]
    )
    assert all(isinstance(image, GeneratedImage) for image in images)
    assert moved == ["prompt_encoder", "unet", "vae"]


async def test_previews_move_the_vae_to_the_device_once(offloading: Engine) -> None:
    moved = record_moves(offloading)
    _, reported = await listen(offloading, request(num_inference_steps=8), wants_previews=True)
    assert all(one.preview is not None for one in reported[:-1])
    assert moved == ["prompt_encoder", "unet", "vae", "unet", "vae"]
