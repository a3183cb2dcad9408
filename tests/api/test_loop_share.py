"""Requests begin as fast as the event loop's share of a core allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from lpw_sdxl.api.loop_share import (
    BUSY_SHARE,
    IDLE_SHARE,
    MOST_CREDIT_S,
    share_while,
    wait_for_share,
)
from lpw_sdxl.api.uvicorn_hooks import WorkerLoop


def run(work: Callable[[], Awaitable[float]]) -> float:
    with asyncio.Runner(loop_factory=WorkerLoop) as runner:
        return runner.run(work())  # type: ignore[arg-type]


def compute(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def crowd(is_busy: bool) -> float:
    """Let forty clients begin requests of 2 ms all the time; return the loop's share of a core."""
    share_while(lambda: is_busy)
    started, cpu = time.perf_counter(), time.thread_time()

    async def client() -> None:
        while time.perf_counter() < started + 1.5:
            await wait_for_share()
            compute(0.002)
            await asyncio.sleep(0)

    await asyncio.gather(*(client() for _ in range(40)))
    used = time.thread_time() - cpu - MOST_CREDIT_S
    return used / (time.perf_counter() - started)


def test_a_crowd_has_half_of_a_core_while_images_are_made() -> None:
    assert run(lambda: crowd(is_busy=True)) < BUSY_SHARE + 0.2


def test_a_crowd_has_nearly_all_of_it_else() -> None:
    assert run(lambda: crowd(is_busy=False)) < IDLE_SHARE + 0.1


def test_a_crowd_of_probes_keeps_no_request_for_ever() -> None:
    async def come() -> float:
        share_while(lambda: True)
        done = asyncio.Event()

        async def probes() -> None:
            while not done.is_set():
                compute(0.001)
                await asyncio.sleep(0)

        crowd = [asyncio.ensure_future(probes()) for _ in range(5)]
        await asyncio.sleep(0.3)
        began = 0
        async with asyncio.timeout(30):
            while began < 5:
                await wait_for_share()
                began += 1
        done.set()
        await asyncio.gather(*crowd)
        return float(began)

    assert run(come) == 5


def test_a_probe_is_not_behind_all_requests_that_wait() -> None:
    async def come() -> float:
        share_while(lambda: True)
        begun: list[int] = []

        async def client(number: int) -> None:
            await wait_for_share()
            compute(0.02)
            begun.append(number)

        clients = [asyncio.ensure_future(client(number)) for number in range(40)]
        await asyncio.sleep(0.01)  # the turns of a probe
        seen = len(begun)
        await asyncio.gather(*clients)
        return float(seen)

    assert run(come) < 20  # which have used up the credit and no more


def test_they_begin_in_the_order_of_their_coming() -> None:
    order: list[int] = []

    async def come() -> float:
        share_while(lambda: True)
        compute(0.2)
        await asyncio.sleep(0)

        async def client(number: int) -> None:
            await wait_for_share()
            order.append(number)

        await asyncio.gather(*map(client, range(50)))
        return 0.0

    run(come)
    assert order == [*range(50)]


async def test_another_loop_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    share_while(lambda: True)
    monkeypatch.setattr(asyncio, "sleep", lambda _: pytest.fail("it waited"))
    await wait_for_share()


def test_a_request_that_comes_alone_does_not_wait() -> None:
    async def come() -> float:
        share_while(lambda: True)
        started = time.thread_time()
        for _ in range(10):
            await asyncio.sleep(0.01)
            await asyncio.wait_for(wait_for_share(), 10)
        return time.thread_time() - started

    assert run(come) < 0.2
