"""The handler of jobs: `input` to images, any number of jobs side by side.

It knows nothing of where jobs come from. An error becomes the job's own; a cancelled call cancels
its images, whose rows are free at the next UNet call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol

from lpw_sdxl.api.previews import PreviewMaker
from lpw_sdxl.api.together import all_or_none
from lpw_sdxl.doors.runpod.answers import DeliveryError, FinishedImage, write_failure
from lpw_sdxl.doors.runpod.delivery import Delivery
from lpw_sdxl.doors.runpod.progress import JobReports, Report, ReportTools
from lpw_sdxl.doors.runpod.translation import JobOrder, translate
from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.progress import Listener
from lpw_sdxl.engine.tracked_job import JobKey, new_request_id
from lpw_sdxl.errors import GenerationError, LpwSdxlError, UnavailableError
from lpw_sdxl.imaging import MEDIA_TYPES, parameters_text
from lpw_sdxl.schema import GenerationRequest

logger = logging.getLogger(__name__)

Job = Mapping[str, Any]
OWNER = "runpod"


class Reporter(Protocol):
    """The way of reports to RunPod."""

    async def send(self, job: Job, report: Report) -> None:
        """Send a report on a job that is made."""


class JobHandler:
    """A handler for one engine.

    Args:
        engine: makes the images.
        delivery: hands them over.
        reporter: sends reports; None where they have nowhere to go.
    """

    def __init__(self, engine: Engine, delivery: Delivery, reporter: Reporter | None) -> None:
        self._engine = engine
        self._delivery = delivery
        self._reporter = reporter
        self._tools = ReportTools(engine.jobs, PreviewMaker())

    async def handle(self, job: Job) -> Any:
        """Make the images of a job; return its output, or what it failed with."""
        try:
            order = await asyncio.to_thread(translate, job.get("input"), self._engine.limits)
            images = await self._make(job, order)
            return await self._delivery.output(str(job.get("id", "job")), images)
        except (LpwSdxlError, DeliveryError) as error:
            if isinstance(error, GenerationError | UnavailableError):
                logger.warning("a job failed: %s", error)
            return write_failure(error)
        except Exception as error:
            logger.exception("a job failed")
            return write_failure(error)

    async def _make(self, job: Job, order: JobOrder) -> list[FinishedImage]:
        """Make all images of an order; the first error ends the others."""
        requests = [one.named(new_request_id()) for one in order.requests]
        async with AsyncExitStack() as stack:
            listeners: list[Listener | None] = [None] * len(requests)
            reporter = self._reporter
            if order.has_progress and reporter is not None:
                keys = [JobKey(OWNER, str(one.request_id)) for one in requests]

                async def send(report: Report) -> None:
                    await reporter.send(job, report)

                reports = JobReports(self._tools, keys, order.preview_every, send)
                listeners = [reports.listener(index) for index in range(len(keys))]
                await stack.enter_async_context(reports.sending())
            is_alone = len(requests) == 1
            return await all_or_none(
                self._make_one(one, listener, leaves_room=not is_alone)
                for one, listener in zip(requests, listeners, strict=True)
            )

    async def _make_one(
        self, request: GenerationRequest, listener: Listener | None, *, leaves_room: bool
    ) -> FinishedImage:
        image = await self._engine.generate(request, listener, leaves_room=leaves_room, owner=OWNER)
        content = await asyncio.to_thread(image.encode)
        record = image.record
        media_type = MEDIA_TYPES[record.request.image_format]
        return FinishedImage(content, media_type, image.seed, image.size, parameters_text(record))
