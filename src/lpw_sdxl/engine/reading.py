"""The reading of requests in threads, in the time that each has, while files come and go."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar, cast

from lpw_sdxl.addon.catalogue import Catalogue
from lpw_sdxl.addon.registry import Pending
from lpw_sdxl.engine.offer import Offer, Offers
from lpw_sdxl.errors import (
    AddonNotReadError,
    DeadlineError,
    LoraUnavailableError,
    OverloadedError,
    TimeLimitError,
    UpscalerUnavailableError,
)
from lpw_sdxl.settings import Settings

T = TypeVar("T")

RETRY_AFTER_READING_S = 5
MOST_TRIES = 5  # of a request whose file is replaced each time between its look-up and its reading


class PictureMemory(Protocol):
    """The memory that counts the bytes of requests' pictures."""

    def grow(self, size: int) -> None:
        """Count so many bytes more, or fewer where that is negative.

        Raises:
            OverloadedError: there is no room for them.
        """


class Uncounted:
    """The memory of a caller in Python, which holds the pictures anyway."""

    def grow(self, size: int) -> None:
        """Count nothing."""


UNCOUNTED = Uncounted()


class Coming(NamedTuple):
    """A request that is read.

    Attributes:
        accepted_at: when it came (time.monotonic).
        deadline_s: its own; None for none.
    """

    accepted_at: float
    deadline_s: float | None


class Reading:
    """The part of reading that all kinds of requests have in common; for one event loop at a time.

    Args:
        offers: of add-ons.
        catalogue: which the offers follow.
        settings: the source of the limits.
    """

    def __init__(self, offers: Offers, catalogue: Catalogue, settings: Settings) -> None:
        self._offers = offers
        self._catalogue = catalogue
        self._settings = settings
        self._waiting_for_files = 0  # requests

    async def with_offer(
        self, read: Callable[[Offer], Awaitable[T]], coming: Coming, what: str
    ) -> T:
        """Read a request with what is offered now, and once more where a file changes meanwhile.

        Args:
            read: reads it.
            coming: the request.
            what: the kind of file that it may have to wait for, such as `a LoRA's file was`.

        Raises:
            UnavailableError: a file can't be read, and no other one has its name now.
            OverloadedError: a quarter of the queue's places wait for files already.
            DeadlineError: a file was still being read when the request's time ran out.
            TimeLimitError: likewise, the server's.
        """
        tries = 0
        while True:
            offer = self._offers.current
            try:
                return await read(offer)
            except AddonNotReadError as error:
                await self._wait_until_read(cast("Pending", error.pending), coming, what)
            except (LoraUnavailableError, UpscalerUnavailableError):
                tries += 1
                await asyncio.to_thread(self._catalogue.look)
                if self._offers.current.registry is offer.registry or tries == MOST_TRIES:
                    raise

    async def in_time(self, reading: Awaitable[T], coming: Coming, what: str) -> T:
        """Wait for what is being read, at most as long as the request may take.

        Raises:
            DeadlineError: it takes longer than the request's own limit.
            TimeLimitError: it takes longer than the server's.
        """
        own = math.inf if coming.deadline_s is None else coming.deadline_s
        limit_s = min(self._settings.time_limit_s, own)
        try:
            left_s = coming.accepted_at + limit_s - time.monotonic()
            return await asyncio.wait_for(reading, left_s)
        except TimeoutError:
            message = f"{what} still being read when the time for this image ran out"
            if limit_s == own:
                raise DeadlineError(message, field="deadline_s") from None
            raise TimeLimitError(message) from None

    async def _wait_until_read(self, pending: Pending, coming: Coming, what: str) -> None:
        """Wait until a file is read, at most as long as the request may take."""
        if self._waiting_for_files >= max(1, self._settings.max_queued_jobs // 4):
            raise OverloadedError(
                "too many requests wait for files that are still being read on this server",
                retry_after_s=RETRY_AFTER_READING_S,
            )
        self._waiting_for_files += 1
        try:
            await self.in_time(asyncio.wrap_future(pending.when_read()), coming, what)
        finally:
            self._waiting_for_files -= 1
