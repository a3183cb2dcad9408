"""A thread for one kind of work, with a bound on what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from lpw_sdxl.errors import OverloadedError
from lpw_sdxl.resting_pool import RestingPool

T = TypeVar("T")

RETRY_AFTER_S = 2


class BoundedPool:
    """A thread that refuses work beyond its bound; for one event loop.

    Args:
        noun: what the work is, for the refusal; in the plural.
        most: pieces of work that wait or are under way.
    """

    def __init__(self, noun: str, *, most: int) -> None:
        self._noun = noun
        self._most = most
        self._count = 0
        self._thread = RestingPool(f"lpw-sdxl-{noun}")

    async def run(self, work: Callable[[], T]) -> T:
        """Do a piece of work in the thread; one that is cancelled before it begins is dropped.

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
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._count -= 1
