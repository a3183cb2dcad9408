"""The memory that bodies and what is read from them take together, bounded before it is taken.

A body counts as its bytes arrive, then with what its parser may make of it, and then with what was
made of it until the request is answered. It is for the event loop's thread alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from types import TracebackType

from pydantic import BaseModel

from lpw_sdxl.api.process import return_free_memory
from lpw_sdxl.errors import OverloadedError

SMALL_BYTES = 512 * 1024  # a body of 64 KiB and what is made of it
PARSED_BYTES = 4
"""Bytes that a parser makes of one byte, at most: Python keeps four for each character of a text
that has one beyond U+FFFF. What it makes besides is bounded by the number of values."""
RETRY_AFTER_S = 5
GIVEN_BACK_BYTES = 32 * 1024 * 1024
GIVE_BACK_S = 1.0  # after the first large request's end, so that a flood causes few calls
_RESERVE = 8  # one part of so many is for small requests, whatever the large ones take


class BodyMemory:
    """The bound on all requests' memory.

    Args:
        limit: bytes.
        give_back: returns freed memory to the system; called in a thread, a moment after the end of
            large requests.
    """

    def __init__(self, limit: int, give_back: Callable[[], None] = return_free_memory) -> None:
        self.used = 0
        self._give_back = give_back
        self._freed = 0  # by large requests, since memory was given back
        self._timer: asyncio.TimerHandle | None = None
        self._limit = limit
        self._limit_for_large = limit - limit // _RESERVE

    def share(self) -> MemoryShare:
        """Begin one request's share, empty; to be used as a context manager."""
        return MemoryShare(self)

    def change(self, before: int, after: int) -> None:
        """Change the size of one share.

        Args:
            before: its bytes until now.
            after: its bytes from now on.

        Raises:
            OverloadedError: it would grow, and there is no room.
        """
        limit = self._limit if after <= SMALL_BYTES else self._limit_for_large
        if after > before and self.used + after - before > limit:
            raise OverloadedError(
                "the bodies of the requests under way leave no room for this one",
                retry_after_s=RETRY_AFTER_S,
            )
        self.used += after - before
        if after < before and before > SMALL_BYTES:
            self._freed += before - after
            if self._freed >= GIVEN_BACK_BYTES and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(GIVE_BACK_S, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._freed = 0
        asyncio.get_running_loop().run_in_executor(None, self._give_back)


def unbounded_share() -> MemoryShare:
    """Make a share of memory that has no bound, for calls that no guard has admitted."""
    return BodyMemory(sys.maxsize).share()


class MemoryShare:
    """The part of `BodyMemory` that one request takes, until its end."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._has_ended = False
        self.size = 0

    def __enter__(self) -> MemoryShare:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.set(0)
        self._has_ended = True

    def grow(self, size: int) -> None:
        """Change the share by a number of bytes; one that has ended stays empty.

        Raises:
            OverloadedError: as `BodyMemory.change`.
        """
        if not self._has_ended:
            self.set(max(0, self.size + size))

    def set(self, size: int) -> None:
        """Change the share to a number of bytes.

        Raises:
            OverloadedError: as `BodyMemory.change`.
        """
        self._memory.change(self.size, size)
        self.size = size


def parsed_size(value: object) -> int:
    """Count the bytes of the texts and files in a parsed request; its numbers do not matter."""
    size = 0
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str | bytes | bytearray):
            size += sys.getsizeof(inner)
        elif isinstance(inner, dict):
            waiting += [*inner.keys(), *inner.values()]
        elif isinstance(inner, list | tuple | set | frozenset):
            waiting += inner
        elif isinstance(inner, BaseModel) or dataclasses.is_dataclass(inner):
            waiting += vars(inner).values()
    return size
