"""Work for a pool of threads waits up to a bound, and is refused beyond it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lpw_sdxl.api.bounded_pool import BoundedPool
from lpw_sdxl.errors import OverloadedError


async def test_work_beyond_the_bound_is_refused_and_finished_work_makes_room() -> None:
    pool = BoundedPool("inspections", most=3)
    gate = threading.Event()
    waiting = [asyncio.ensure_future(pool.run(gate.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="3 inspections wait already") as refusal:
        await pool.run(gate.wait)
    assert refusal.value.retry_after_s >= 1
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await pool.run(lambda: 5) == 5


async def test_cancelled_work_is_not_begun_and_makes_room() -> None:
    pool = BoundedPool("inspections", most=2)
    gate, begun = threading.Event(), threading.Event()
    first = asyncio.ensure_future(pool.run(gate.wait))
    second = asyncio.ensure_future(pool.run(begun.set))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    third = asyncio.ensure_future(pool.run(lambda: 5))
    gate.set()
    assert (await first, await third) == (True, 5)
    assert not begun.is_set()


async def test_failing_work_makes_room() -> None:
    pool = BoundedPool("inspections", most=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
