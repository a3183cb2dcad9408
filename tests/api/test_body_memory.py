"""All bodies together, and what is read from them, stay under one bound."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from lpw_sdxl.api import body_memory
from lpw_sdxl.api.body_memory import SMALL_BYTES, BodyMemory, parsed_size
from lpw_sdxl.api.endpoint_table import EndpointTable
from lpw_sdxl.api.endpoints import Answer, Body, Endpoint, HeadCheck, Payload, take_request
from lpw_sdxl.api.guard import Admission, RequestGuard
from lpw_sdxl.api.process import return_free_memory
from lpw_sdxl.errors import InvalidRequestError, OverloadedError
from lpw_sdxl.request_reading import ParsedBatch
from lpw_sdxl.schema import GenerationRequest

MB = 1024 * 1024
LIMIT = 80 * MB  # 70 for large requests


async def test_shares_are_counted_together_and_end() -> None:
    memory = BodyMemory(LIMIT)
    with memory.share() as first, memory.share() as second:
        first.set(40 * MB)
        second.set(30 * MB)
        with pytest.raises(OverloadedError, match="leave no room") as refusal:
            second.set(30 * MB + 1)
        assert refusal.value.retry_after_s >= 1
        assert memory.used == 70 * MB
        second.set(10 * MB)
        first.set(60 * MB)
    assert memory.used == 0


async def test_small_requests_have_room_beside_large_ones() -> None:
    memory = BodyMemory(LIMIT)
    with memory.share() as large, memory.share() as small:
        large.set(70 * MB)
        small.set(SMALL_BYTES)
        with pytest.raises(OverloadedError):
            small.set(SMALL_BYTES + 1)
        assert memory.used == 70 * MB + SMALL_BYTES


async def test_a_share_may_shrink_whatever_the_others_take() -> None:
    memory = BodyMemory(LIMIT)
    with memory.share() as large, memory.share() as other:
        large.set(70 * MB)
        for _ in range(16):
            other.set(SMALL_BYTES)
        large.set(69 * MB)


async def test_a_share_grows_by_what_a_picture_becomes_and_shrinks_again() -> None:
    memory = BodyMemory(LIMIT)
    with memory.share() as share, memory.share() as other:
        share.set(10 * MB)
        share.grow(40 * MB)
        other.set(15 * MB)
        with pytest.raises(OverloadedError):
            share.grow(5 * MB + 1)
        assert share.size == 50 * MB  # as before
        share.grow(5 * MB)
        assert memory.used == 70 * MB
        share.grow(-55 * MB)
        assert memory.used == 15 * MB
        share.grow(-1)
        assert share.size == 0


async def test_a_share_that_has_ended_stays_empty() -> None:
    """A client that leaves ends its share; its job may let go of its picture after that."""
    memory = BodyMemory(LIMIT)
    with memory.share() as share:
        share.grow(10 * MB)
    share.grow(20 * MB)
    share.grow(-30 * MB)
    assert memory.used == share.size == 0


def test_texts_are_counted_as_python_keeps_them() -> None:
    plain, wide = "a" * 100_000, "a" * 99_999 + "\U0001f98a"
    for text, size in ((plain, 100_000), (wide, 400_000)):
        request = GenerationRequest(prompt=text)
        assert size < parsed_size(request) < size + 10_000
        assert 2 * size < parsed_size({"a": [text], text: (1, None)}) < 2 * size + 10_000
    batch = ParsedBatch((GenerationRequest(prompt=wide), InvalidRequestError("no")))
    assert 400_000 < parsed_size(batch) < 410_000


async def test_freed_memory_is_given_back_once_after_large_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_memory, "GIVE_BACK_S", 0.05)
    calls: list[bool] = []
    memory = BodyMemory(LIMIT, lambda: calls.append(True))
    for size, expected in ((MB, 0), (20 * MB, 0), (20 * MB, 1), (SMALL_BYTES, 1), (40 * MB, 2)):
        for _ in range(3 if size == SMALL_BYTES else 1):
            with memory.share() as share:
                share.set(size)
        await asyncio.sleep(0.2)
        assert len(calls) == expected
    return_free_memory()  # the real one works here


class Service:
    """A guard around an application that answers when it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.started = 0
        row = Endpoint(
            ("POST",),
            "/x",
            "",
            Answer(""),
            body=Body(
                lambda payload: bytes(payload.content), 16 * MB, head_check=HeadCheck.TOLERANT
            ),
        )
        self.guard = RequestGuard(self, EndpointTable([row]), Admission(), body_memory_bytes=LIMIT)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.guard), base_url="http://test"
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size = len(take_request(scope, bytes))
        self.started += 1
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})

    def post(self, content: Any) -> asyncio.Task[httpx.Response]:
        return asyncio.ensure_future(self.client.post("/x", content=content))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    one = Service()
    async with one.client:
        yield one


async def wait_for(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_requests_hold_what_was_read_until_they_are_answered(service: Service) -> None:
    waiting = []
    for number in range(3):  # 9 MB each, once they are read
        waiting.append(service.post(b"x" * 9 * MB))
        await wait_for(lambda: service.started > number)  # noqa: B023 - awaited at once
    refused = await service.client.post("/x", content=b"x" * 9 * MB)  # its parser needs 45
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    small = service.post(b"x" * 1000)
    await wait_for(lambda: service.started > 3)
    service.may_answer.set()
    assert [(await one).text for one in (*waiting, small)] == [str(9 * MB)] * 3 + ["1000"]
    assert (await service.client.post("/x", content=b"x" * 9 * MB)).status_code == 200


async def test_bodies_that_are_still_arriving_count(service: Service) -> None:
    service.may_answer.set()
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(15):
            yield b"x" * MB
        await gate.wait()
        yield b"x"

    waiting = [service.post(slow()) for _ in range(4)]
    await wait_for(lambda: service.guard.body_bytes == 60 * MB)
    assert (await service.client.post("/x", content=b"x" * 11 * MB)).status_code == 429
    assert (await service.client.post("/x", content=b"x" * 1000)).status_code == 200
    gate.set()
    statuses = sorted([(await one).status_code for one in waiting])
    assert statuses[-1] == 429  # there is no room to read all of them at once
    assert service.guard.body_bytes == 0
    assert (await service.client.post("/x", content=b"x" * 14 * MB)).status_code == 200


async def test_a_client_that_leaves_takes_its_share_along(service: Service) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 10 * MB
        await asyncio.sleep(60)

    leaving = service.post(endless())
    await wait_for(lambda: service.guard.body_bytes == 10 * MB)
    leaving.cancel()
    await wait_for(lambda: service.guard.body_bytes == 0)


async def test_a_refused_body_is_let_go_before_its_client_has_the_answer() -> None:
    views: list[weakref.ref[memoryview]] = []

    def refuse(payload: Payload) -> object:
        assert isinstance(payload.content, memoryview)
        views.append(weakref.ref(payload.content))
        try:
            raise ValueError(payload)
        except ValueError:
            raise InvalidRequestError("no") from None

    row = Endpoint(
        ("POST",), "/x", "", Answer(""), body=Body(refuse, 16 * MB, head_check=HeadCheck.TOLERANT)
    )
    sizes: list[int] = []

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def send_noting(message: Any) -> None:
            sizes.append(guard.body_bytes)
            assert [view() for view in views] == [None]
            await send(message)

        await guard(scope, receive, send_noting)

    guard = RequestGuard(noting, EndpointTable([row]), Admission(), body_memory_bytes=LIMIT)
    transport = httpx.ASGITransport(app=noting)
    gc.disable()  # nothing may have to wait for the collector
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.post("/x", content=b"x" * 2 * MB)).status_code == 400
    finally:
        gc.enable()
    assert sizes
    assert set(sizes) == {0}
