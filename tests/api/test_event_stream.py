"""A stream's events, with a real engine, below a server that the test plays."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from lpw_sdxl.api import event_stream
from lpw_sdxl.api.endpoints import Answer, Call, Endpoint
from lpw_sdxl.api.event_stream import EventStream, StreamPlan, StreamTools
from lpw_sdxl.api.previews import PreviewMaker
from lpw_sdxl.api.shaped_answer import ShapedAnswer
from lpw_sdxl.client import Event, EventParser
from lpw_sdxl.engine import Engine, GeneratedImage
from lpw_sdxl.engine.offer import Offer
from lpw_sdxl.engine.tracked_job import JobKey, JobState, JobStatus
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.schema import GenerationRequest

NUMBERS = itertools.count()  # the engine is that of all tests
ROW = Endpoint(("POST",), "/generate_stream", "", Answer(""))
SCOPE = {"type": "http", "method": "POST", "path": "/generate_stream", "headers": []}


def request(**fields: Any) -> GenerationRequest:
    wanted = {"prompt": "a", "num_inference_steps": 6, "height": 64, "width": 64, "seed": 1}
    return GenerationRequest.model_validate(wanted | fields)


class Client:
    """The server's side of one connection, as its client makes it behave."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.reads = asyncio.Event()  # while not set, every send waits
        self.reads.set()
        self.left = asyncio.Event()
        self.arrived = asyncio.Event()
        self.answer = ShapedAnswer(self._take, lambda code: None)

    async def send(self, message: Any) -> None:
        await self.answer.send(message)

    async def _take(self, message: Any) -> None:
        self.messages.append(message)
        self.arrived.set()
        await self.reads.wait()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def events(self) -> list[Event]:
        return list(EventParser().feed(self.body))

    def named(self, name: str) -> list[Any]:
        return [event.data for event in self.events if event.name == name]

    async def until(self, count: int) -> None:
        """Wait for so many events."""
        async with asyncio.timeout(30):
            while len(self.events) < count:
                self.arrived.clear()
                await self.arrived.wait()


@pytest.fixture
def tools(engine: Engine) -> StreamTools:
    return StreamTools(engine, lambda image: image.encode(), PreviewMaker(), lambda code: None)


def stream(tools: StreamTools, *items: Any, every: int = 0, is_batch: bool = False) -> EventStream:
    call = Call(ROW, {}, f"the-id.{next(NUMBERS)}", "her", sees_jobs=True)
    return EventStream(tools, call, StreamPlan(items, every, is_batch))


def status_of(engine: Engine, response: EventStream) -> JobStatus | None:
    return engine.jobs.find(key_of(response))


def key_of(response: EventStream) -> JobKey:
    return JobKey("her", response._call.request_id)


@asynccontextmanager
async def answering(response: EventStream) -> AsyncIterator[tuple[Client, asyncio.Task[None]]]:
    client = Client()
    answer = asyncio.ensure_future(response(SCOPE, client.receive, client.send))
    try:
        yield client, answer
    finally:
        client.reads.set()
        client.left.set()
        async with asyncio.timeout(30):
            await asyncio.gather(answer, return_exceptions=True)


async def answered(response: EventStream) -> Client:
    client = Client()
    async with asyncio.timeout(60):
        await response(SCOPE, client.receive, client.send)
    assert client.messages[-1] == {
        "type": "http.response.body",
        "body": b"",
        "more_body": False,
    }
    return client


async def test_events_come_in_their_order_with_the_image_last(
    tools: StreamTools, engine: Engine
) -> None:
    response = stream(tools, request())
    client = await answered(response)
    assert client.status == 200
    headers = dict(client.messages[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers
    assert client.answer.summary == "200"
    names = [event.name for event in client.events]
    assert names == ["queued", *["progress"] * (len(names) - 2), "image"]
    assert client.named("queued") == [
        {"request_id": response._call.request_id, "place": 0} | waiting(client)
    ]
    progress = client.named("progress")
    calls = [one["call"] for one in progress]
    assert calls == sorted(set(calls))
    assert calls[-1] == progress[-1]["calls"] == progress[-1]["steps"] == 6
    assert all(one["preview"] is None for one in progress)
    [image] = client.named("image")
    expected = (await engine.generate(request())).encode()
    assert base64.b64decode(image.pop("image")) == expected
    assert image["parameters"].startswith("a\nSteps: 6, ")
    del image["parameters"]
    assert image == {"seed": 1, "width": 64, "height": 64, "media_type": "image/png"}


def waiting(client: Client) -> dict[str, Any]:
    return {"wait_s": client.named("queued")[0]["wait_s"]}


async def test_previews_come_when_they_are_due(tools: StreamTools) -> None:
    client = await answered(stream(tools, request(num_inference_steps=40), every=5))
    previews = [one["preview"] for one in client.named("progress") if one["preview"]]
    assert 2 < len(previews) <= 7  # of 5, 10, ... 35; some may be drawn too late for their event
    with Image.open(io.BytesIO(base64.b64decode(previews[0]))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (8, 8))


async def test_a_preview_that_fails_costs_neither_progress_nor_image(
    tools: StreamTools, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lpw_sdxl.diffusion.preview import UndrawnPreview

    def fail(_: UndrawnPreview) -> None:
        raise RuntimeError("no colours")

    monkeypatch.setattr(UndrawnPreview, "draw", fail)
    client = await answered(stream(tools, request(), every=1))
    assert client.events[-1].name == "image"
    assert {one["preview"] for one in client.named("progress")} == {None}
    assert "no colours" in caplog.text


async def test_a_refusal_has_its_status_and_no_event(tools: StreamTools) -> None:
    client = await answered_with_error(stream(tools, request(loras=[{"name": "absent"}])))
    assert client.status == 400
    assert json.loads(client.body)["error"]["field"] == "loras.0.name"


async def answered_with_error(response: EventStream) -> Client:
    client = Client()
    async with asyncio.timeout(30):
        await response(SCOPE, client.receive, client.send)
    return client


async def test_a_later_error_is_an_event(tools: StreamTools) -> None:
    late = request(num_inference_steps=150, height=256, width=256, deadline_s=0.5)
    client = await answered(stream(tools, late))
    assert client.status == 200
    assert client.answer.summary == "200 deadline_exceeded"
    assert client.events[-1] == Event(
        "error",
        {
            "error": {
                "code": "deadline_exceeded",
                "message": "the time for this image ran out before it was done",
                "field": "deadline_s",
            }
        },
    )


async def test_a_cancelled_job_ends_its_stream_with_an_error(
    tools: StreamTools, engine: Engine
) -> None:
    response = stream(tools, request(num_inference_steps=150))
    async with answering(response) as (client, answer):
        await client.until(2)
        assert engine.jobs.cancel(key_of(response)) is not None
        await answer
    assert client.events[-1].data["error"]["code"] == "cancelled"
    assert client.answer.summary == "200 cancelled"


async def test_a_client_that_leaves_takes_its_job_along(tools: StreamTools, engine: Engine) -> None:
    tasks = len(asyncio.all_tasks())
    response = stream(tools, request(num_inference_steps=150))
    async with answering(response) as (client, answer):
        await client.until(2)
        client.left.set()
        await answer
    assert client.answer.summary == "200 client_left"
    status = status_of(engine, response)
    assert status is not None
    assert status.state is JobState.CANCELLED
    assert status.unet_calls_done < 150
    assert len(asyncio.all_tasks()) == tasks


async def test_a_client_that_leaves_before_the_first_event_is_noticed(
    tools: StreamTools, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, read = threading.Event(), threading.Event()
    resolver = engine._resolver
    resolve = resolver.resolve

    def slow(wanted: GenerationRequest, offer: Offer) -> Any:
        reading.set()
        assert read.wait(30)
        return resolve(wanted, offer)

    monkeypatch.setattr(resolver, "resolve", slow)
    response = stream(tools, request())
    async with answering(response) as (client, answer):
        await asyncio.to_thread(reading.wait, 30)
        client.left.set()
        await answer
        read.set()
    assert client.status == 499
    assert status_of(engine, response) is None


async def test_a_client_that_reads_nothing_keeps_no_image_waiting(
    tools: StreamTools, engine: Engine
) -> None:
    slow = stream(tools, request(num_inference_steps=60), every=1)
    async with answering(slow) as (client, answer):
        await client.until(1)
        client.reads.clear()
        sent = len(client.messages)
        async with asyncio.timeout(60):
            while (status := status_of(engine, slow)) is None or (
                status.state is not JobState.DONE
            ):
                await engine.generate(request(num_inference_steps=1))
        assert len(client.messages) <= sent + 1  # the one that waits; nothing piles up behind it
        client.reads.set()
        await answer
    calls = [one["call"] for one in client.named("progress")]
    assert len(calls) < 60
    assert calls[-1] == 60  # the newest is left, and then the image
    assert client.events[-1].name == "image"


async def test_a_silent_stream_has_a_heartbeat(
    tools: StreamTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.1)
    quiet = stream(tools, request(num_inference_steps=150, height=1024, width=1024))
    async with answering(quiet) as (client, _):
        async with asyncio.timeout(60):
            while b": still here\n\n" not in client.body:
                client.arrived.clear()
                await client.arrived.wait()


async def test_a_batch_tells_of_each_item_by_its_index(tools: StreamTools) -> None:
    items = [
        request(seed=1),
        InvalidRequestError("width is 7", field="width"),
        request(seed=3, request_id="third"),
        request(seed=4, loras=[{"name": "absent"}]),
    ]
    response = stream(tools, *items, is_batch=True)
    client = await answered(response)
    assert client.status == 200
    images = {one["index"]: one["seed"] for one in client.named("image")}
    assert images == {0: 1, 2: 3}
    errors = {one["index"]: one["error"]["field"] for one in client.named("error")}
    assert errors == {1: "width", 3: "loras.0.name"}
    queued = {one["index"]: one["request_id"] for one in client.named("queued")}
    assert queued == {0: f"{response._call.request_id}-0", 2: "third"}
    assert {one["index"] for one in client.named("progress")} == {0, 2}


async def test_an_image_that_cannot_be_encoded_is_the_error_of_its_item_only(
    tools: StreamTools, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(image: GeneratedImage) -> bytes:
        if image.seed == 2:
            raise OSError("no memory for a file")
        return image.encode()

    codes: list[str] = []
    broken = replace(tools, encode=encode, count_error=codes.append)
    items = [request(seed=seed) for seed in (1, 2, 3)]
    client = await answered(stream(broken, *items, is_batch=True))
    assert {one["index"] for one in client.named("image")} == {0, 2}
    [failed] = client.named("error")
    assert (failed["index"], failed["error"]["code"]) == (1, "internal")
    assert codes == ["internal"]
    assert "no memory for a file" in caplog.text


async def test_images_that_wait_for_their_client_are_files(tools: StreamTools) -> None:
    encoded = threading.Event()

    def encode(image: GeneratedImage) -> bytes:
        encoded.set()
        return image.encode()

    response = stream(replace(tools, encode=encode), request(num_inference_steps=20), is_batch=True)
    async with answering(response) as (client, _):
        await client.until(1)
        client.reads.clear()
        assert await asyncio.to_thread(encoded.wait, 30)
        assert client.named("image") == []


async def test_places_are_told_again_when_they_change(
    tools: StreamTools, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "PLACES_S", 0.02)
    from lpw_sdxl.engine import job_registry

    monkeypatch.setattr(job_registry, "PLACES_S", 0.0)
    others = [
        asyncio.ensure_future(engine.generate(request(num_inference_steps=15, seed=seed)))
        for seed in range(30)
    ]
    while engine.queued_jobs < 30:
        await asyncio.sleep(0.01)
    client = await answered(stream(tools, request(num_inference_steps=1)))
    places = [one["place"] for one in client.named("queued")]
    assert places[0] > 0
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == len(places) > 1
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
