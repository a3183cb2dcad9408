"""A thread that leaves the interpreter to others half of the time."""

from __future__ import annotations

import time

import pytest

from lpw_sdxl.resting_pool import RestingPool


def work(seconds: float) -> float:
    """Compute for so long; return the CPU time that it took, seconds."""
    began = time.thread_time()
    while time.thread_time() < began + seconds:
        pass
    return time.thread_time() - began


def test_it_rests_as_long_as_it_worked_where_more_work_waits() -> None:
    with RestingPool("resting") as pool:
        started = time.monotonic()
        took = sum(one.result() for one in [pool.submit(work, 0.05) for _ in range(5)])
        assert time.monotonic() - started > took * 1.7  # nothing comes after the last


def test_work_that_comes_alone_begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    with RestingPool("resting") as pool:
        pool.submit(work, 0.02).result()
        time.sleep(0.1)
        monkeypatch.setattr(time, "sleep", rests.append)
        pool.submit(work, 0.0).result()
    assert rests == [0.0]


def test_an_error_is_the_works_own() -> None:
    with RestingPool("resting") as pool, pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result()
