"""Waiting for room in the queue: repeated, counted, ended by the owner, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from lpw_sdxl.doors.a1111 import lobby as module
from lpw_sdxl.doors.a1111.lobby import Lobby, Patience
from lpw_sdxl.errors import JobCancelledError, OverloadedError


class Queue:
    """A queue that has room after some tries."""

    def __init__(self, full_for: float) -> None:
        self.tries = 0
        self._full_for = full_for

    async def draw(self) -> str:
        self.tries += 1
        if self.tries <= self._full_for:
            raise OverloadedError("the queue is full", retry_after_s=1)
        return "an image"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)


async def test_a_request_waits_until_there_is_room() -> None:
    lobby, queue = Lobby(), Queue(3)
    assert await Patience(lobby, "her").make(queue.draw) == "an image"
    assert queue.tries == 4
    assert lobby.count("her") == 0


async def test_patience_ends_and_begins_anew() -> None:
    patience = Patience(Lobby(), "her", seconds=0.0)
    with pytest.raises(OverloadedError):
        await patience.make(Queue(99).draw)
    patience.seconds = 10.0
    patience.renew()
    assert await patience.make(Queue(2).draw) == "an image"


async def test_an_owner_ends_the_waiting_of_its_own_images_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 5.0)
    lobby = Lobby()
    hers = [asyncio.ensure_future(Patience(lobby, "her").make(Queue(99).draw)) for _ in range(2)]
    his = asyncio.ensure_future(Patience(lobby, "him").make(Queue(99).draw))
    await asyncio.sleep(0.01)
    assert (lobby.count("her"), lobby.count("him")) == (2, 1)
    lobby.stop("her")
    lobby.stop("no one")
    async with asyncio.timeout(2):
        for one in hers:
            with pytest.raises(JobCancelledError):
                await one
    assert (lobby.count("her"), lobby.count("him")) == (0, 1)
    assert not his.done()
    his.cancel()
    await asyncio.wait([his])
    assert lobby.count("him") == 0
