"""A client that leaves takes its request along: BentoML does not tell an endpoint of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from lpw_sdxl.errors import ClientLeftError

T = TypeVar("T")

POLL_SECONDS = 0.25


class ConnectedRequest(Protocol):
    """The part of Starlette's Request that is needed here."""

    async def is_disconnected(self) -> bool:
        """Tell whether the client has gone."""


async def while_connected(request: ConnectedRequest, work: Awaitable[T]) -> T:
    """Await the work, and cancel it when the client goes.

    Raises:
        ClientLeftError: if the client left first; the work has been cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=POLL_SECONDS)
            if not task.done() and await request.is_disconnected():
                raise ClientLeftError("the client left before the answer")
        return await task
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
