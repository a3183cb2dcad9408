"""A fault's reach: exactly the jobs it hits fail, the next one works, nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from injection import EXCEPTIONS, NO_MEMORY, Fault, Injector, Place, tensor_bytes
from lpw_sdxl.engine import Engine, GeneratedImage, ImageProgress, Listener
from lpw_sdxl.errors import GenerationError, OutOfMemoryError, UnavailableError
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings

pytestmark = pytest.mark.thorough

WORDS = ["amber", "brass", "cedar", "dawn", "ember", "fjord", "glass", "harbour", "iris", "jade"]
SENTENCES = [" ".join(words) for words in itertools.product(WORDS, repeat=3)]
AT_ONCE = 12  # requests: eight fill a UNet call, four wait


def request(seed: int, **fields: Any) -> GenerationRequest:
    """Build a request for a small image with its seed's own words."""
    small = {"num_inference_steps": 4, "width": 64, "height": 64, "prompt": SENTENCES[seed]}
    return GenerationRequest.model_validate(small | {"seed": seed} | fields)


def varied(seed: int, choice: random.Random) -> GenerationRequest:
    return request(
        seed,
        num_inference_steps=choice.randint(3, 6),
        guidance_scale=choice.choice([1.0, 5.0, 9.0]),
        scheduler=choice.choice(list(SchedulerName)),
    )


def same(one: GeneratedImage, other: GeneratedImage) -> bool:
    return bool(np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 1)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.002)


async def begin_together(
    engine: Engine, requests: Sequence[GenerationRequest], listener: Listener | None = None
) -> list[asyncio.Future[GeneratedImage]]:
    """Start jobs that are encoded together: the thread can't begin until all of them wait."""
    with engine._loop.queue._changed:
        jobs = [asyncio.ensure_future(engine.generate(one, listener)) for one in requests]
        await until(lambda: engine.queued_jobs == len(jobs))
    return jobs


async def crowd(
    engine: Engine, requests: list[GenerationRequest]
) -> dict[int, GeneratedImage | BaseException]:
    """Make all images, AT_ONCE at a time; return each job's result or error by its seed."""
    room = asyncio.Semaphore(AT_ONCE)

    async def make(wanted: GenerationRequest) -> GeneratedImage:
        async with room:
            return await engine.generate(wanted)

    ends = await asyncio.gather(*map(make, requests), return_exceptions=True)
    return {one.seed or 0: end for one, end in zip(requests, ends, strict=True)}


class Deaths(list[str]):
    """Remembers what `on_death` was called with."""

    def __call__(self, reason: str) -> None:
        self.append(reason)


@pytest.fixture
def deaths() -> Deaths:
    return Deaths()


@pytest.fixture
def own_engine(model_directory: Path, deaths: Deaths) -> Iterator[Engine]:
    """An engine to be hurt; it remembers no prompt, so that each is encoded."""
    settings = Settings(device="cpu", conditioning_cache_bytes=0, stall_s=60)
    engine = Engine.load(model_directory, settings, on_death=deaths)
    yield engine
    engine.close()


async def bytes_at_rest(engine: Engine) -> int:
    """Count the bytes of all tensors once neither the engine's thread nor our tasks hold any."""
    await asyncio.sleep(0.05)
    await until(lambda: engine._loop._pulse.busy_s == 0)
    return tensor_bytes()


def random_faults(count: int, seeds: list[int], choice: random.Random) -> dict[int, Fault]:
    """Draw `count` lacks of memory and `count` exceptions, each for a job of its own."""
    kinds = [NO_MEMORY] * count + [EXCEPTIONS] * count
    struck = choice.sample(seeds, len(kinds))
    return {
        seed: Fault(choice.choice(list(Place)), choice.choice(kind), choice.uniform(400, 999))
        for seed, kind in zip(struck, kinds, strict=True)
    }


def assert_ends(
    ends: Mapping[int, GeneratedImage | BaseException],
    faults: Mapping[int, Fault],
    alone: Mapping[int, GeneratedImage],
) -> None:
    """Every job that was struck failed by its code, and every other is as alone."""
    for seed, end in ends.items():
        if seed in faults:
            lacks_memory = faults[seed].error in NO_MEMORY
            expected = OutOfMemoryError if lacks_memory else GenerationError
            assert type(end) is expected, (seed, faults[seed], end)
        else:
            assert isinstance(end, GeneratedImage), (seed, end)
            assert same(end, alone[seed]), seed


@pytest.mark.parametrize(
    ("count", "unhurt"),
    [(5, 20), pytest.param(100, 30, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
async def test_faults_at_random_places_fail_exactly_the_jobs_they_hit(
    engine: Engine,
    own_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    count: int,
    unhurt: int,
) -> None:
    # What pytest keeps of a warning holds its traceback, and so the tensors of its frames.
    caplog.set_level(logging.ERROR, logger="lpw_sdxl.engine.faults")
    choice = random.Random(5)
    requests = [varied(seed, choice) for seed in range(2 * count + unhurt)]
    faults = random_faults(count, [one.seed or 0 for one in requests], choice)
    alone = {
        one.seed or 0: await engine.generate(one) for one in requests if one.seed not in faults
    }
    await crowd(own_engine, requests[:16])
    base = await bytes_at_rest(own_engine)
    injector = Injector(own_engine, faults, requests, monkeypatch)
    # Each lack of memory halves the calls for a while, so there are few beside the exceptions.
    injector.transient = [make() for make in (*NO_MEMORY, *EXCEPTIONS * -(-count // 20))]
    ends = await crowd(own_engine, requests)
    injector.remove()
    assert injector.transient == []
    assert injector.raised >= 2 * count
    assert_ends(ends, faults, alone)
    ends.clear()
    following = min(set(alone))
    assert same(await own_engine.generate(requests[following]), alone[following])
    assert own_engine.queued_jobs == 0
    assert own_engine.counters.failed == 2 * count
    del injector
    assert await bytes_at_rest(own_engine) == base


async def test_an_image_that_does_not_fit_leaves_the_others_their_full_calls(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(seed, num_inference_steps=6) for seed in range(8)]
    faults = {3: Fault(Place.UNET, NO_MEMORY[0], from_timestep=700)}
    injector = Injector(own_engine, faults, requests, monkeypatch)
    jobs = await begin_together(own_engine, requests)
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    injector.remove()
    assert [seed for seed, end in enumerate(ends) if not isinstance(end, GeneratedImage)] == [3]
    assert injector.rows[-1] == 14  # all seven others in one call again
    assert own_engine.counters.out_of_memory == injector.raised == 5  # of 8, 4, 2 jobs, 2 rows, 1


async def test_less_memory_than_planned_makes_smaller_calls_and_fails_no_job(
    engine: Engine, own_engine: Engine
) -> None:
    """The real UNet lacks memory for more than five rows, of whichever jobs."""
    rows = []

    def lack(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        rows.append(len(keywords["timestep"]))
        if rows[-1] > 5:
            raise torch.OutOfMemoryError("injected")

    hook = own_engine.pipeline.unet.register_forward_pre_hook(lack, with_kwargs=True)
    requests = [request(seed) for seed in range(8)]
    ends = await asyncio.gather(*await begin_together(own_engine, requests))
    hook.remove()
    for one, end in zip(requests, ends, strict=True):
        assert same(end, await engine.generate(one))
    assert sum(count > 5 for count in rows) <= 3  # it does not try in vain at every step
    assert own_engine.counters.failed == 0


def lost() -> Exception:
    return torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize("place", list(Place))
async def test_a_lost_device_is_reported_to_all_callers_and_ends_the_engine(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch, deaths: Deaths, place: Place
) -> None:
    requests = [request(seed) for seed in range(12)]
    injector = Injector(own_engine, {2: Fault(place, lost)}, requests, monkeypatch)
    jobs = await begin_together(own_engine, requests)
    async with asyncio.timeout(30):
        ends = await asyncio.gather(*jobs, return_exceptions=True)
    injector.remove()
    unavailable = [isinstance(end, UnavailableError) for end in ends]
    done = [isinstance(end, GeneratedImage) for end in ends]
    assert unavailable[2]
    assert all(a or b for a, b in zip(unavailable, done, strict=True)), ends
    assert sum(done) <= 2  # those decoded before the one with the fault
    assert injector.raised == 1  # a lost device is not used any more
    assert not own_engine.is_alive
    with pytest.raises(UnavailableError):
        await own_engine.generate(requests[0])
    await until(lambda: bool(deaths))
    await asyncio.sleep(1.5)  # another check of the watchdog
    assert len(deaths) == 1
    assert own_engine.queued_jobs == 0


async def test_a_stall_is_reported_to_all_callers_while_the_thread_still_hangs(
    model_directory: Path, deaths: Deaths
) -> None:
    engine = Engine.load(model_directory, Settings(device="cpu", stall_s=1), on_death=deaths)
    is_free, hangs = threading.Event(), threading.Event()

    def hang(module: Any, arguments: Any) -> None:
        hangs.set()
        is_free.wait(60)

    hook = engine.pipeline.unet.register_forward_pre_hook(hang)
    try:
        jobs = [asyncio.ensure_future(engine.generate(request(seed))) for seed in range(12)]
        await asyncio.to_thread(hangs.wait, 30)
        started = time.monotonic()
        ends = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
        assert not is_free.is_set()
        assert time.monotonic() - started < 5  # the limit, and the watchdog's check every second
        assert all(isinstance(end, UnavailableError) for end in ends)
        assert not engine.is_alive
        with pytest.raises(UnavailableError):
            await engine.generate(request(1))
        await until(lambda: bool(deaths))
    finally:
        is_free.set()
        hook.remove()
    engine.close()
    assert len(deaths) == 1
    assert engine.counters.images == 0  # no image is made after its caller was answered


async def test_three_of_eight_that_are_cancelled_are_not_in_the_next_call(
    engine: Engine, own_engine: Engine
) -> None:
    requests = [request(seed, num_inference_steps=16, scheduler="Euler a") for seed in range(8)]
    rows = []
    hook = own_engine.pipeline.unet.register_forward_pre_hook(
        lambda _, __, keywords: rows.append(len(keywords["timestep"])), with_kwargs=True
    )
    jobs = await begin_together(own_engine, requests)
    await until(lambda: len(rows) >= 5)
    for job in jobs[1:4]:
        job.cancel()
    await asyncio.sleep(0)  # a future is cancelled at the event loop's next turn
    calls_before = len(rows)
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    hook.remove()
    assert set(rows[:calls_before]) == {16}
    assert set(rows[calls_before + 1 :]) == {10}  # one call may have begun
    assert own_engine.counters.left == 3
    assert own_engine.counters.images == 5
    for seed in (0, 4, 5, 6, 7):
        end = ends[seed]
        assert isinstance(end, GeneratedImage)
        assert same(end, await engine.generate(requests[seed]))


async def test_a_job_that_is_cancelled_while_waiting_never_begins(own_engine: Engine) -> None:
    requests = [request(seed, num_inference_steps=8) for seed in range(12)]
    jobs = await begin_together(own_engine, requests)
    await until(lambda: bool(own_engine.counters.unet_calls))
    jobs[-1].cancel()  # eight fill the calls
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    assert sum(isinstance(end, GeneratedImage) for end in ends) == 11
    assert own_engine.counters.left == 1
    carried = sum(count * calls for count, calls in own_engine.counters.unet_calls.items())
    assert carried == 11 * 8


async def test_a_job_that_is_cancelled_while_decoded_is_no_image(
    own_engine: Engine,
) -> None:
    decodes, goes_on = threading.Event(), threading.Event()

    def pause(module: Any, arguments: Any) -> None:
        decodes.set()
        goes_on.wait(60)

    hook = own_engine.pipeline.vae.post_quant_conv.register_forward_pre_hook(pause)
    cancelled = asyncio.ensure_future(own_engine.generate(request(1)))
    await asyncio.to_thread(decodes.wait, 60)
    cancelled.cancel()
    await asyncio.sleep(0.01)
    goes_on.set()
    await until(lambda: not own_engine.queued_jobs)
    hook.remove()
    assert (own_engine.counters.left, own_engine.counters.images) == (1, 0)


async def test_an_answered_caller_finds_its_place_free(model_directory: Path) -> None:
    settings = Settings(device="cpu", max_queued_jobs=1)
    engine = Engine.load(model_directory, settings)
    for seed in range(20):
        await engine.generate(request(seed, num_inference_steps=1))
        assert engine.queued_jobs == 0
    engine.close()


async def test_a_preview_that_fails_spoils_no_image(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VAE, to which previews are fitted at the first step, fails until an image needs it."""
    reported: list[ImageProgress] = []

    def fail(module: Any, arguments: tuple[torch.Tensor]) -> None:
        if arguments[0].shape[-1] != 8:  # of the images; previews are fitted to a larger one
            raise RuntimeError("injected")

    hook = own_engine.pipeline.vae.post_quant_conv.register_forward_pre_hook(fail)
    listener = Listener(reported.append, wants_preview=lambda _: True)
    image, other = await asyncio.gather(
        own_engine.generate(request(1), listener), own_engine.generate(request(2))
    )
    hook.remove()
    assert [one.unet_calls_done for one in reported] == [1, 2, 3, 4]
    assert all(one.preview is None for one in reported)
    assert image.seed == 1
    assert other.seed == 2
    assert own_engine.is_alive


async def test_a_listener_of_a_job_that_failed_is_not_called_again(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[ImageProgress] = []
    faults = {1: Fault(Place.SCHEDULER, EXCEPTIONS[0], from_timestep=600)}
    injector = Injector(own_engine, faults, [request(1)], monkeypatch)
    with pytest.raises(GenerationError):
        await own_engine.generate(request(1), Listener(reported.append))
    injector.remove()
    await own_engine.generate(request(2))
    assert [one.unet_calls_done for one in reported] == [1]
