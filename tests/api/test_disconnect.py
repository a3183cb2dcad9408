from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest

from lpw_sdxl.api.disconnect import cancel_on_disconnect
from lpw_sdxl.errors import ClientLeftError


class Client:
    """A client that disconnects when the test says so."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}


async def test_work_of_a_client_that_stays_is_answered() -> None:
    assert await cancel_on_disconnect(Client(), asyncio.sleep(0.01, result=7)) == 7


async def test_an_error_of_the_work_reaches_the_caller() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await cancel_on_disconnect(Client(), fail())


class Picture:
    """What failed work has in its frames."""


async def test_an_error_keeps_nothing_of_the_work_in_memory() -> None:
    async def fail(picture: Picture) -> None:
        await asyncio.sleep(0)
        raise ValueError(type(picture).__name__)

    picture = Picture()
    kept = weakref.ref(picture)
    work = fail(picture)
    del picture
    gc.disable()  # it would free a circle of references at any time
    try:
        with contextlib.suppress(ValueError):  # pytest.raises would keep the frames
            await cancel_on_disconnect(Client(), work)
        del work
        await asyncio.sleep(0)  # the event loop drops its own last references
        assert kept() is None
    finally:
        gc.enable()


async def test_a_client_that_leaves_takes_its_work_along() -> None:
    client, cancelled = Client(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    waiting = asyncio.ensure_future(cancel_on_disconnect(client, work()))
    await asyncio.sleep(0.05)
    client.leaves.set()
    with pytest.raises(ClientLeftError):
        await asyncio.wait_for(waiting, 5)
    assert cancelled.is_set()
