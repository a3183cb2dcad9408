"""A client that leaves takes its request along: BentoML does not tell an endpoint of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeVar

from lpw_sdxl.errors import ClientLeftError

T = TypeVar("T")


class ConnectedRequest(Protocol):
    """The part of Starlette's Request that is needed here; its body has been read."""

    @property
    def receive(self) -> Callable[[], Awaitable[MutableMapping[str, Any]]]:
        """Wait for the connection's next message."""


async def cancel_on_disconnect(request: ConnectedRequest, work: Awaitable[T]) -> T:
    """Await the work, and cancel it when the client goes.

    Raises:
        ClientLeftError: if the client left first; the work has been cancelled.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeftError("the client left before the answer")
        return await working
    finally:
        for task in (working, leaving):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _departure(request: ConnectedRequest) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
