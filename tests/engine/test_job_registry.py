"""Jobs by their owners: seen, cancelled, forgotten; with a real engine and a tiny model."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lpw_sdxl.diffusion.preview import UndrawnPreview
from lpw_sdxl.engine import Engine, Listener, job_registry
from lpw_sdxl.engine.job_registry import JobRegistry
from lpw_sdxl.engine.offer import Offer
from lpw_sdxl.engine.progress import PreviewPicture
from lpw_sdxl.engine.tracked_job import JobKey, JobState
from lpw_sdxl.errors import InvalidRequestError, JobCancelledError, RequestIdInUseError
from lpw_sdxl.schema import GenerationRequest

HERS = JobKey("her", "one")


def request(**fields: Any) -> GenerationRequest:
    wanted = {"prompt": "a", "num_inference_steps": 4, "height": 64, "width": 64, "seed": 1}
    return GenerationRequest.model_validate(wanted | fields)


class Gate:
    """Holds the engine's thread after a UNet call until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def wait(self, _calls_done: int) -> bool:
        self.reached.set()
        assert self._opened.wait(30)
        return False

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@asynccontextmanager
async def standing(engine: Engine, gate: Gate, **options: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Keep her job `one` after its first UNet call."""
    listener = Listener(lambda _: None, gate.wait)
    working = asyncio.ensure_future(
        engine.generate(request(request_id="one"), listener, owner="her", **options)
    )
    assert await asyncio.to_thread(gate.reached.wait, 30)
    yield working
    gate.open()
    await asyncio.gather(working, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_job_is_seen_from_its_beginning_to_a_minute_after_its_end(
    engine: Engine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(engine, gate) as working:
        status = engine.jobs.find(HERS)
        assert status is not None
        assert (status.request_id, status.state, status.place) == ("one", JobState.RUNNING, None)
        assert (status.unet_calls, status.steps) == (4, 4)
        gate.open()
        await working
    ended = engine.jobs.find(HERS)
    assert ended is not None
    assert (ended.state, ended.steps_done, ended.seconds_left) == (JobState.DONE, 4, None)
    monkeypatch.setattr(job_registry, "KEPT_S", 0.0)
    assert engine.jobs.find(HERS) is None
    assert engine.jobs.owned_by("her") == []


async def test_an_owner_sees_and_cancels_no_other_ones_jobs(engine: Engine, gate: Gate) -> None:
    async with standing(engine, gate):
        other = JobKey("him", "one")
        assert engine.jobs.find(other) is None
        assert engine.jobs.cancel(other) is None
        assert engine.jobs.owned_by("him") == []
        assert [one.request_id for one in engine.jobs.owned_by("her")][-1] == "one"
        gate.open()
        # The same id is another job's with another owner.
        image = await engine.generate(request(request_id="one"), owner="him")
        assert image.seed == 1
        assert engine.jobs.find(HERS).state in (JobState.RUNNING, JobState.DONE)  # type: ignore[union-attr]


async def test_an_id_that_is_in_use_is_refused_and_free_after_the_end(
    engine: Engine, gate: Gate
) -> None:
    async with standing(engine, gate) as working:
        with pytest.raises(RequestIdInUseError, match="request_id is that of a job under way"):
            await engine.generate(request(request_id="one"), owner="her")
        gate.open()
        await working
    await engine.generate(request(request_id="one"), owner="her")


async def test_a_job_that_its_owner_cancels_leaves_at_the_next_step(
    engine: Engine, gate: Gate
) -> None:
    async with standing(engine, gate) as working:
        status = engine.jobs.cancel(HERS)
        assert status is not None
        gate.open()
        with pytest.raises(JobCancelledError, match="owner has cancelled"):
            await working
        status = engine.jobs.find(HERS)
        assert status is not None
        assert status.state is JobState.CANCELLED
        assert status.unet_calls_done <= 1
    await until(lambda: engine.queued_jobs == 0)
    assert len(engine.jobs) == 0


async def test_a_job_that_its_owner_stops_gives_what_there_is(engine: Engine, gate: Gate) -> None:
    whole = await engine.generate(request())
    async with standing(engine, gate, takes_unfinished=True) as working:
        waiting = asyncio.ensure_future(engine.generate(request(request_id="later"), owner="her"))
        other = asyncio.ensure_future(engine.generate(request(request_id="later"), owner="him"))
        await until(lambda: engine.queued_jobs == 3)
        assert engine.jobs.stop("no one") == 0
        assert engine.jobs.stop("her", spares_waiting=True) == 1
        gate.open()
        stopped = await working
        assert stopped.pixels.shape == whole.pixels.shape
        assert (stopped.pixels != whole.pixels).any()
        status = engine.jobs.find(HERS)
        assert status is not None
        assert (status.state, status.unet_calls_done) == (JobState.DONE, 1)
        assert status.ended_s is not None
        for going_on in (waiting, other):
            difference = (await going_on).pixels.astype(int) - whole.pixels
            assert np.abs(difference).max() <= 1, "as in any company"


async def test_a_job_whose_caller_takes_whole_images_is_cancelled(
    engine: Engine, gate: Gate
) -> None:
    async with standing(engine, gate) as working:
        assert engine.jobs.stop("her") == 1
        gate.open()
        with pytest.raises(JobCancelledError):
            await working


async def test_a_job_that_is_stopped_while_it_waits_is_cancelled(
    engine: Engine, gate: Gate
) -> None:
    async with standing(engine, gate):
        waiting = asyncio.ensure_future(engine.generate(request(request_id="later"), owner="him"))
        await until(lambda: engine.queued_jobs == 2)
        assert engine.jobs.stop("him") == 1
        with pytest.raises(JobCancelledError):
            await waiting


async def test_a_second_pass_that_is_stopped_is_as_large_as_the_pass_that_it_is_in(
    engine: Engine,
) -> None:
    for calls, side in ((2, 64), (5, 128)):

        def stop(calls_done: int, when: int = calls) -> bool:
            if calls_done == when:
                engine.jobs.stop("her")
            return False

        wanted = request(hires={"scale": 2.0, "steps": 4, "strength": 1.0})
        listener = Listener(lambda _: None, stop)
        image = await engine.generate(wanted, listener, owner="her", takes_unfinished=True)
        assert image.pixels.shape == (side, side, 3)


async def test_a_job_whose_caller_leaves_is_cancelled_too(engine: Engine, gate: Gate) -> None:
    async with standing(engine, gate) as working:
        working.cancel()
        await asyncio.wait([working])
        assert working.cancelled()
    status = engine.jobs.find(HERS)
    assert status is not None
    assert status.state is JobState.CANCELLED


async def test_a_job_that_is_cancelled_while_its_prompt_is_read_is_not_drawn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, read = threading.Event(), threading.Event()
    resolver = engine._resolver
    resolve = resolver.resolve

    def slow(wanted: GenerationRequest, offer: Offer) -> Any:
        reading.set()
        assert read.wait(30)
        return resolve(wanted, offer)

    monkeypatch.setattr(resolver, "resolve", slow)
    working = asyncio.ensure_future(engine.generate(request(request_id="unread"), owner="her"))
    await asyncio.to_thread(reading.wait, 30)
    status = engine.jobs.cancel(JobKey("her", "unread"))
    assert status is not None
    assert status.state is JobState.CANCELLED
    async with asyncio.timeout(5):
        with pytest.raises(JobCancelledError):
            await working  # which is still being read
    assert not working.cancelled()
    assert engine.jobs.find(JobKey("her", "unread")) is None
    read.set()


async def test_a_caller_that_is_cancelled_with_its_job_ends_as_cancelled(
    engine: Engine, gate: Gate
) -> None:
    async with standing(engine, gate) as working:
        engine.jobs.cancel(HERS)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working


async def test_a_cancelled_job_leaves_its_callers_task_as_it_was(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may go on in the same task."""
    resolver, resolve = engine._resolver, engine._resolver.resolve

    def cancelled(wanted: GenerationRequest, offer: Offer) -> Any:
        engine.jobs.cancel(HERS)
        return resolve(wanted, offer)

    monkeypatch.setattr(resolver, "resolve", cancelled)
    with pytest.raises(JobCancelledError):
        await engine.generate(request(request_id="one"), owner="her")
    monkeypatch.undo()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert (await engine.generate(request(request_id="one"), owner="her")).seed == 1


async def test_of_two_jobs_of_one_id_the_newest_is_listed(engine: Engine, gate: Gate) -> None:
    key = JobKey("twice", "one")
    await engine.generate(request(request_id="one"), owner="twice")
    listener = Listener(lambda _: None, gate.wait)
    again = asyncio.ensure_future(
        engine.generate(request(request_id="one"), listener, owner="twice")
    )
    assert await asyncio.to_thread(gate.reached.wait, 30)
    assert [one.state for one in engine.jobs.owned_by("twice")] == [JobState.RUNNING]
    assert engine.jobs.find(key).state is JobState.RUNNING  # type: ignore[union-attr]
    gate.open()
    await again
    assert [one.state for one in engine.jobs.owned_by("twice")] == [JobState.DONE]


async def test_a_refused_request_leaves_no_job(engine: Engine) -> None:
    before = len(engine.jobs.owned_by("him"))
    with pytest.raises(InvalidRequestError):
        await engine.generate(
            request(request_id="two", num_inference_steps=999, prompt="\0"), owner="him"
        )
    assert len(engine.jobs.owned_by("him")) == before
    assert engine.jobs.find(JobKey("him", "two")) is None


async def test_places_are_those_of_the_queue(engine: Engine, gate: Gate) -> None:
    async with standing(engine, gate):
        waiting = [
            asyncio.ensure_future(engine.generate(request(request_id=f"{n}"), owner="them"))
            for n in range(3)
        ]
        await until(lambda: engine.queued_jobs == 4)
        jobs = engine.jobs.owned_by("them")
        assert [(one.state, one.place) for one in jobs] == [
            (JobState.QUEUED, place) for place in range(3)
        ]
        waits = [one.wait_s for one in jobs if one.wait_s is not None]
        assert waits == sorted(waits)
        gate.open()
        await asyncio.gather(*waiting)


async def test_nothing_is_drawn_where_nobody_looks(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = JobKey("her", "unseen")
    await engine.generate(request(request_id="unseen", num_inference_steps=8), owner="her")
    assert engine.jobs.preview_bytes == 0
    seen: list[bytes] = []

    def look(_calls_done: int) -> bool:
        status = engine.jobs.find(key, watches=True)
        if status is not None and status.preview is not None:
            seen.append(status.preview.encode())
        return False

    listener = Listener(lambda _: None, look)
    await engine.generate(
        request(request_id="unseen", num_inference_steps=8), listener, owner="her"
    )
    assert len(seen) > 3
    with Image.open(io.BytesIO(seen[-1])) as picture:
        assert picture.size == (8, 8)
    assert engine.jobs.preview_bytes == 0  # of a job that ended


async def test_a_preview_for_a_watcher_is_none_of_the_listeners(engine: Engine) -> None:
    key = JobKey("her", "watched")
    heard: list[tuple[int, bool]] = []

    def look(calls_done: int) -> bool:
        engine.jobs.find(key, watches=True)
        return calls_done == 3

    listener = Listener(
        lambda progress: heard.append((progress.unet_calls_done, progress.preview is not None)),
        look,
    )
    wanted = request(request_id="watched", num_inference_steps=6)
    await engine.generate(wanted, listener, owner="her")
    assert heard == [(calls, calls == 3) for calls in range(1, 7)]


def picture() -> PreviewPicture:
    return PreviewPicture(UndrawnPreview(torch.zeros(4, 8, 8), np.zeros((5, 3), np.float32)))


def test_previews_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = JobRegistry(lambda: None)
    monkeypatch.setattr(job_registry, "MAX_PREVIEW_BYTES", 2 * picture().byte_count)
    keys = [JobKey("her", f"{n}") for n in range(3)]
    with registry.follow(keys[0]), registry.follow(keys[1]), registry.follow(keys[2]):
        for key in keys:
            registry.keep_preview(key, picture())
        found = [registry.find(key) for key in keys]
        assert [one is not None and one.preview is not None for one in found] == [
            False,
            True,
            True,
        ]
    assert registry.preview_bytes == 0
    registry.keep_preview(keys[0], picture())  # too late
    assert registry.preview_bytes == 0


async def test_jobs_that_ended_are_bounded_in_number(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_registry, "MAX_ENDED", 2)
    for number in range(4):
        await engine.generate(request(request_id=f"n{number}"), owner="many")
    assert [one.request_id for one in engine.jobs.owned_by("many")] == ["n2", "n3"]


async def test_an_id_changes_neither_the_image_nor_its_file(engine: Engine) -> None:
    plain = await engine.generate(request())
    named = await engine.generate(request(request_id="a-name.of_mine"))
    assert named.encode() == plain.encode()


def test_time_passes_while_a_job_is_followed() -> None:
    registry = JobRegistry(lambda: None)
    with registry.follow(HERS):
        time.sleep(0.01)
        status = registry.find(HERS)
        assert status is not None
        assert status.state is JobState.QUEUED
        assert status.age_s >= 0.01
    assert registry.find(HERS) is None  # it was never accepted
