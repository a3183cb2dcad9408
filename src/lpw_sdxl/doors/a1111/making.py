"""The images of an order: those that their owner did not stop, and a short wait instead of a 429.

No client of A1111's repeats a request, so that one for which there is no room waits here a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lpw_sdxl.api.endpoints import Call
from lpw_sdxl.doors.a1111.lobby import Lobby, Patience
from lpw_sdxl.errors import JobCancelledError
from lpw_sdxl.imaging import ImageRecord
from lpw_sdxl.schema import GenerationRequest

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine, GeneratedImage


@dataclass(frozen=True)
class DrawnImage:
    """An image and its file.

    Attributes:
        content: of the file.
        record: how it was made.
    """

    content: bytes
    record: ImageRecord


@dataclass
class ImageMaker:
    """A maker of the images of one request.

    Attributes:
        engine: makes them.
        encode: encodes an image as a file; CPU work, called in a thread.
        call: that is answered.
        lobby: where images wait for room in the queue.
    """

    engine: Engine
    encode: Callable[[GeneratedImage], bytes]
    call: Call
    lobby: Lobby

    async def make(self, requests: Sequence[GenerationRequest]) -> list[DrawnImage]:
        """Make images concurrently, in their order; the first error ends the others.

        Those that their owner has cancelled are left out.

        Args:
            requests: of the images. One alone has the call's id, one of several that and its index.

        Raises:
            LpwSdxlError: as `Engine.generate`.
        """
        patience = Patience(self.lobby, self.call.owner)
        ids = [self.call.item_id(index) for index in range(len(requests))]
        if len(requests) == 1:
            ids = [self.call.request_id]
        named = (one.named(id_) for one, id_ in zip(requests, ids, strict=True))
        leaves_room = len(requests) > 1
        tasks = [asyncio.ensure_future(self._make_one(one, patience, leaves_room)) for one in named]
        del requests  # they hold their pictures' files
        try:
            made = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tasks.clear()
        return [one for one in made if one is not None]

    async def _make_one(
        self, request: GenerationRequest, patience: Patience, leaves_room: bool
    ) -> DrawnImage | None:
        """Make one image; None where its owner has cancelled it."""
        making = partial(
            self.engine.generate,
            request,
            leaves_room=leaves_room,
            owner=self.call.owner,
            memory=self.call.memory,
            takes_unfinished=True,
        )
        del request
        try:
            image = await patience.make(making)
        except JobCancelledError:
            return None
        del making  # it holds its pictures' files
        content = await asyncio.to_thread(self.encode, image)
        patience.renew()
        return DrawnImage(content, image.record)
