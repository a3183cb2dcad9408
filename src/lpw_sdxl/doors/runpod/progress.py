"""The reports on a job that is made: one a second at most, each when the last has arrived."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from lpw_sdxl.api.job_answer import JobAnswer
from lpw_sdxl.api.previews import PreviewMaker
from lpw_sdxl.api.streamed_image import Wakeup
from lpw_sdxl.engine.job_registry import JobRegistry
from lpw_sdxl.engine.progress import ImageProgress, Listener, PreviewPicture
from lpw_sdxl.engine.tracked_job import JobKey

logger = logging.getLogger(__name__)

REPORT_S = 1.0  # from one report to the next: each is a request to RunPod
LOOK_S = 5.0  # without news, the places in the queue are looked up
Report = dict[str, Any]
Send = Callable[[Report], Awaitable[None]]
_SHOWN = ("state", "place", "wait_s", "call", "calls", "step", "steps", "seconds_left")


@dataclass(frozen=True)
class ReportTools:
    """The parts of a worker that reports are made of.

    Attributes:
        jobs: knows each image's progress.
        previews: draws previews.
    """

    jobs: JobRegistry
    previews: PreviewMaker


class JobReports:
    """The reports on the images of one job.

    Args:
        tools: of the worker.
        keys: of the images, in their order.
        preview_every: UNet calls from one preview to the next; 0 for none.
        send: hands a report over.
    """

    def __init__(
        self, tools: ReportTools, keys: Sequence[JobKey], preview_every: int, send: Send
    ) -> None:
        self._tools = tools
        self._keys = keys
        self._preview_every = preview_every
        self._send = send
        self._wakeup = Wakeup()
        self._previews: dict[int, PreviewPicture] = {}

    def listener(self, index: int) -> Listener:
        """Return the listener to an image; it may be called in any thread."""

        def note(progress: ImageProgress) -> None:
            if progress.preview is not None:
                self._previews[index] = progress.preview
            self._wakeup.wake()

        def wants_preview(calls_done: int) -> bool:
            return self._preview_every > 0 and calls_done % self._preview_every == 0

        return Listener(note, wants_preview, self._wakeup.wake)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send reports until the block ends; a failure ends the reports and nothing else."""
        task = asyncio.create_task(self._send_all())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _send_all(self) -> None:
        try:
            while True:
                await self._wakeup.wait(LOOK_S)
                await self._send(await self._write())
                await asyncio.sleep(REPORT_S)
        except Exception as error:  # noqa: BLE001 - whatever hinders a report, the image goes on
            logger.warning("a job is not reported on any more: %s", type(error).__name__)

    async def _write(self) -> Report:
        images = []
        for index, key in enumerate(self._keys):
            preview = await self._tools.previews.make(self._previews.pop(index, None))
            status = self._tools.jobs.find(key)
            image: Report = {"index": index}
            if status is not None:
                answer = JobAnswer.of(status)
                image |= {name: getattr(answer, name) for name in _SHOWN}
            if preview is not None:
                image["preview"] = preview
            images.append(image)
        shares = [one["call"] / one["calls"] for one in images if one.get("calls")]
        return {"progress": round(sum(shares) / len(images), 4), "images": images}
