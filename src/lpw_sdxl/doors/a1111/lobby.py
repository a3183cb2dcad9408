"""Requests that wait for room in the queue, as no client of A1111's repeats one that is refused.

Their owners see them as jobs that have not begun, and may end them. For one event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from lpw_sdxl.errors import JobCancelledError, OverloadedError

T = TypeVar("T")

PATIENCE_S = 30.0
"""A request waits for room so long, from its beginning or the last of its own images."""
PAUSE_S = 1.0  # between two tries, on average


class Lobby:
    """The images that wait, by their owners."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._stops: dict[str, asyncio.Event] = {}

    def count(self, owner: str) -> int:
        """Count the images of an owner."""
        return self._waiting[owner]

    def stop(self, owner: str) -> None:
        """End the waiting of all images of an owner."""
        if (stop := self._stops.get(owner)) is not None:
            stop.set()

    async def pause(self, owner: str, seconds: float) -> bool:
        """Wait for a while; return whether the owner has ended that."""
        stop = self._stops.setdefault(owner, asyncio.Event())
        self._waiting[owner] += 1
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting[owner] -= 1
            if not self._waiting[owner]:
                del self._waiting[owner]
                self._stops.pop(owner, None)
        return True


@dataclass
class Patience:
    """The patience of one request.

    Attributes:
        lobby: where it waits.
        owner: of the request.
        seconds: for room in the queue.
    """

    lobby: Lobby
    owner: str
    seconds: float = PATIENCE_S
    _until: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin to wait anew: something of the request is done."""
        self._until = time.monotonic() + self.seconds

    async def make(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what an attempt makes; repeat it for a while where there is no room.

        Raises:
            OverloadedError: there is still no room.
            JobCancelledError: the owner has ended the waiting.
        """
        while True:
            try:
                return await attempt()
            except OverloadedError:
                pause_s = PAUSE_S * random.uniform(0.5, 1.5)  # noqa: S311 - spreads a crowd
                if time.monotonic() + pause_s > self._until:
                    raise
            if await self.lobby.pause(self.owner, pause_s):
                raise JobCancelledError("its owner has ended this image while it waited")
