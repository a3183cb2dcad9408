"""Threads for one kind of work, with a bound on what waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lpw_sdxl.errors import OverloadedError

T = TypeVar("T")

RETRY_AFTER_S = 2
LONGEST_REST_S = 0.5


class BoundedPool:
    """A pool of threads that refuses work beyond its bound; for one event loop.

    Args:
        noun: what the work is, for the refusal; in the plural.
        threads: number of threads.
        most: pieces of work that wait or are under way.

    Each thread rests after a piece as long as that took, if another one waits: the engine's thread
    needs the interpreter too.
    """

    def __init__(self, noun: str, *, threads: int, most: int) -> None:
        self._noun = noun
        self._most = most
        self._count = 0
        self._rest_s = 0.0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"lpw-sdxl-{noun}")

    async def run(self, work: Callable[[], T]) -> T:
        """Do a piece of work in a thread; one that is cancelled before it begins is dropped.

        Raises:
            OverloadedError: too much waits already.
        """
        if self._count >= self._most:
            raise OverloadedError(
                f"{self._count} {self._noun} wait already, and at most {self._most} may",
                retry_after_s=RETRY_AFTER_S,
            )
        self._count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, work)
        finally:
            self._count -= 1

    def _do(self, work: Callable[[], T]) -> T:
        if self._rest_s:
            time.sleep(self._rest_s)
        started = time.thread_time()
        try:
            return work()
        finally:
            self._rest_s = min(time.thread_time() - started, LONGEST_REST_S)
