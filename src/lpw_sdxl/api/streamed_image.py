"""One image of a stream: what its job reports, from any thread, until its client knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from lpw_sdxl.api.body_memory import MemoryShare
from lpw_sdxl.api.stream_events import EventWriter
from lpw_sdxl.errors import LpwSdxlError

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine, GeneratedImage, ImageProgress, Listener
    from lpw_sdxl.engine.progress import PreviewPicture
    from lpw_sdxl.engine.tracked_job import JobKey
    from lpw_sdxl.schema import GenerationRequest

logger = logging.getLogger(__name__)


class StreamedImage:
    """An image under way. It keeps no more than the newest of what was reported.

    Args:
        index: in the batch; None for an image that is alone.
        key: of its job, of which the registry knows the progress.
        wake: called after every report; returns at once.

    Attributes:
        outcome: the event of the image, or its error; None until then, and once it is sent.
        is_accepted: whether nothing can refuse it any more.
        is_begun: whether it has left the queue.
        is_sent: whether its client has its outcome.
        known_place: in the queue, as its client knows it; None if it knows none.
        known_call: the UNet calls of which its client knows.
    """

    def __init__(self, index: int | None, key: JobKey, wake: Callable[[], None]) -> None:
        self.index = index
        self.key = key
        self.outcome: bytes | Exception | None = None
        self.is_accepted = False
        self.is_begun = False
        self.is_sent = False
        self.known_place: int | None = None
        self.known_call = 0
        self._wake = wake
        self._has_progress = False
        self._preview: PreviewPicture | None = None

    @property
    def is_waiting(self) -> bool:
        """Return whether its job waits in the queue, as far as is known."""
        return self.is_accepted and not self.is_begun and self.outcome is None

    @property
    def has_progress(self) -> bool:
        """Return whether there is progress of which its client does not know."""
        return self._has_progress

    def take_preview(self) -> PreviewPicture | None:
        """Note that its client learns of the progress; return the newest preview, if any."""
        self._has_progress = False
        preview, self._preview = self._preview, None
        return preview

    async def make(
        self,
        engine: Engine,
        encode: Callable[[GeneratedImage], bytes],
        request: GenerationRequest,
        preview_every: int,
        memory: MemoryShare,
        *,
        events: EventWriter,
    ) -> None:
        """Make the image and write its event; an error becomes the outcome.

        The event is written at once: while a client reads slowly, what waits for it are files.

        Args:
            engine: makes it.
            encode: encodes it as a file; CPU work, called in a thread.
            request: of the image.
            preview_every: UNet calls from one preview to the next; 0 for none.
            memory: counts its pictures.
            events: of the stream.
        """
        listener, index = self._listener(preview_every), self.index
        try:
            making = engine.generate(
                request,
                listener,
                leaves_room=index is not None,
                owner=self.key.owner,
                memory=memory,
            )
            del request  # it holds its pictures' files until they are read
            image = await making
            write = lambda: events.image(image, encode(image), index)  # noqa: E731
            self.outcome = await asyncio.to_thread(write)
        except LpwSdxlError as error:
            self.outcome = error
        except Exception as error:
            logger.exception("an image of a stream failed")
            self.outcome = error
        self._wake()

    def _listener(self, preview_every: int) -> Listener:
        from lpw_sdxl.engine import Listener  # noqa: PLC0415 - it imports torch

        def wants_preview(calls_done: int) -> bool:
            return preview_every > 0 and calls_done % preview_every == 0

        return Listener(self._note_progress, wants_preview, self._note_accepted)

    def _note_accepted(self) -> None:
        self.is_accepted = True
        self._wake()

    def _note_progress(self, progress: ImageProgress) -> None:
        self.is_begun = self._has_progress = True
        if progress.preview is not None:
            self._preview = progress.preview
        self._wake()


class Wakeup:
    """A wake-up of one coroutine from any thread; many of them at once are one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._is_coming = False

    def wake(self) -> None:
        """Wake the coroutine, or its next wait; returns at once."""
        if not self._is_coming:
            self._is_coming = True
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Wait for a wake-up, or until so many seconds have passed."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()
        self._is_coming = False
