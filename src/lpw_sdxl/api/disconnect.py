"""Cancellation of a request's work when its client disconnects, which BentoML does not report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeVar

from lpw_sdxl.errors import ClientLeftError

T = TypeVar("T")


class ConnectedRequest(Protocol):
    """The part of Starlette's Request that is used here; its body has been read."""

    @property
    def receive(self) -> Callable[[], Awaitable[MutableMapping[str, Any]]]:
        """Return the function that awaits the connection's next message."""


async def cancel_on_disconnect(request: ConnectedRequest, work: Awaitable[T]) -> T:
    """Return the result of a request's work; cancel the work if the client disconnects first.

    Raises:
        ClientLeftError: if the client disconnected first; the work has been cancelled.
    """
    working = asyncio.ensure_future(work)
    disconnecting = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({working, disconnecting}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeftError("the client left before the answer")
        return await working
    finally:
        for task in (working, disconnecting):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        # An error of the work has this frame in its trace. Were the task in it, both would stay
        # until garbage is collected, and with them the frames' pictures, of megabytes.
        del working, disconnecting, task


async def _wait_for_disconnect(request: ConnectedRequest) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
