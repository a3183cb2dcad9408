"""The event loop's share of a core, and a gate where new requests wait while it is used up.

A loop that never rests holds the interpreter nearly all the time. The engine's thread, which needs
it between any two kernels, would stand still under a crowd of cheap requests, and a probe would
wait for all of them. So requests begin only as fast as the loop's share allows; probes pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BUSY_SHARE = 0.5  # while images are made
IDLE_SHARE = 0.9
MOST_CREDIT_S = 0.05  # a burst of so much CPU time is never slowed
MOST_DEBT_S = 0.05
LONGEST_WAIT_S = 0.05  # of the first that waits: probes, which never do, could use up the share


class LoopShare:
    """The CPU time that a loop has used and may use; for the loop's thread alone.

    Attributes:
        is_busy: returns whether images are made.
    """

    def __init__(self) -> None:
        self.is_busy: Callable[[], bool] = lambda: False
        self._credit_s = MOST_CREDIT_S
        self._counted_at = time.perf_counter()
        self._cpu_s = time.thread_time()
        self._gate: asyncio.Lock | None = None

    @property
    def debt_s(self) -> float:
        """Return the CPU time that was used beyond the share, seconds; 0 for none."""
        return max(0.0, -self._credit_s)

    def count_turn(self) -> None:
        """Count what a turn of the loop has used."""
        now, cpu_s = time.perf_counter(), time.thread_time()
        earned = (now - self._counted_at) * self._share - (cpu_s - self._cpu_s)
        self._credit_s = max(-MOST_DEBT_S, min(self._credit_s + earned, MOST_CREDIT_S))
        self._counted_at, self._cpu_s = now, cpu_s

    async def wait(self) -> None:
        """Wait until a request may begin; those that wait go on in the order of their coming."""
        self.count_turn()  # up to now: many requests may come in one turn
        if not self.debt_s and (self._gate is None or not self._gate.locked()):
            return
        if self._gate is None:
            self._gate = asyncio.Lock()
        async with self._gate:
            until = time.perf_counter() + LONGEST_WAIT_S
            while self.debt_s and time.perf_counter() < until:
                await asyncio.sleep(min(self.debt_s / self._share, LONGEST_WAIT_S))

    @property
    def _share(self) -> float:
        return BUSY_SHARE if self.is_busy() else IDLE_SHARE


async def wait_for_share() -> None:
    """Wait until the running loop's share allows a request to begin, if it has a `LoopShare`."""
    share = getattr(asyncio.get_running_loop(), "share", None)
    if share is not None:
        await share.wait()


def share_while(is_busy: Callable[[], bool]) -> None:
    """Leave more of the interpreter to others while a condition holds, if the loop has a share."""
    share = getattr(asyncio.get_running_loop(), "share", None)
    if share is not None:
        share.is_busy = is_busy
