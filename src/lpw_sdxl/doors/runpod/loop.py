"""RunPod's own loop of a worker, with an end that loses no job, and its reports.

Its package asks for jobs by a call that RunPod holds open for up to 90 s. At SIGTERM it would wait
for that call, and a job that came by it would be left undone: the tasks that do jobs have ended by
then. Here the open call is given up first, and only then the loop ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from runpod.http_client import AsyncClientSession
from runpod.serverless.modules import rp_http, rp_job, rp_scale

from lpw_sdxl.doors.runpod.handler import Job
from lpw_sdxl.doors.runpod.progress import Report

Fetch = Callable[..., Awaitable[Any]]

logger = logging.getLogger(__name__)

STOP_CHANNEL = "/job-take/"  # of the address of jobs, from which that of cancellations is made


class DrainingScaler(rp_scale.JobScaler):  # type: ignore[misc]
    """RunPod's loop, whose open calls end before it does.

    Args:
        config: RunPod's.
    """

    jobs_fetcher: Any
    stop_signals_fetcher: Any

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving = asyncio.Event()  # no more jobs are asked for
        self._ended = asyncio.Event()  # nor whether any is cancelled
        self._fetch_jobs = self.jobs_fetcher
        self._fetch_stop_signals = self.stop_signals_fetcher
        self.jobs_fetcher = self._take
        if STOP_CHANNEL in rp_job.JOB_GET_URL:  # else its own warning is right
            self.stop_signals_fetcher = self._watch

    async def run(self) -> None:
        """Take jobs until SIGTERM, and finish those that were taken."""
        self._loop = asyncio.get_running_loop()
        await super().run()
        logger.info("no job is left, and this worker ends")

    def handle_shutdown(self, signum: int, frame: Any) -> None:
        """Begin the end, at SIGTERM or SIGINT."""
        if self._loop is None:
            super().handle_shutdown(signum, frame)
            return
        self._loop.call_soon_threadsafe(self._leaving.set)

    def kill_worker(self) -> None:
        """End the loop as soon as the jobs that were taken are done."""
        super().kill_worker()
        self._ended.set()

    async def _take(self, session: Any, count: int) -> Any:
        """Request jobs; once the worker leaves, return None and end the loop."""
        jobs = await _unless(self._leaving, self._fetch_jobs, session, count)
        if not jobs and self._leaving.is_set():
            logger.info("SIGTERM: the jobs under way are finished, and no more are taken")
            self.kill_worker()
        return jobs

    async def _watch(self, session: Any) -> list[str]:
        """Wait for ids of cancelled jobs, as long as there are jobs."""
        return await _unless(self._ended, self._fetch_stop_signals, session) or []


async def _unless(event: asyncio.Event, fetch: Fetch, *arguments: Any) -> Any:
    """Return what a call answers; None, and the call is given up, if the event comes first."""
    if event.is_set():
        return None
    waiting = asyncio.ensure_future(event.wait())
    fetching = asyncio.ensure_future(fetch(*arguments))
    try:
        await asyncio.wait((waiting, fetching), return_when=asyncio.FIRST_COMPLETED)
        return fetching.result() if fetching.done() else None
    finally:
        for one in (waiting, fetching):
            one.cancel()
        await asyncio.gather(waiting, fetching, return_exceptions=True)


class PlatformReporter:
    """A sender of reports by the call that RunPod's package sends results by.

    Its own `progress_update` sends each in a thread, so that one may arrive after the result.
    """

    async def send(self, job: Job, report: Report) -> None:
        """Send a report, and wait until it has arrived."""
        async with AsyncClientSession() as session:
            await rp_http.send_result(session, {"status": "IN_PROGRESS", "output": report}, job)
