"""One job as its owner sees it: its state at any moment, its cancellation, and its end."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from lpw_sdxl.engine.progress import ImageProgress, Listener, PreviewPicture
from lpw_sdxl.engine.queued_job import Answer, AnyJob, QueuedJob
from lpw_sdxl.errors import JobCancelledError

T = TypeVar("T")

WATCHED_S = 10.0  # after a look at a job, previews are drawn for so long


class JobKey(NamedTuple):
    """The key of a job: two owners may use the same `request_id`."""

    owner: str
    request_id: str


class JobState(StrEnum):
    """A state of a job; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class JobStatus:
    """A job at one moment.

    Attributes:
        request_id: its owner's name for it.
        state: what it is doing.
        age_s: seconds since it came.
        place: jobs before it that wait to begin; None if it does not wait.
        wait_s: expected until it begins, seconds; None if it does not wait, or is not known.
        unet_calls_done: so far; of a picture that is enlarged, its upscaler's tiles.
        unet_calls: in all, likewise; 0 as long as it is read.
        steps_done: so far, of `steps`.
        steps: in all, of which a picture's strength may leave a share.
        seconds_left: expected; None where it is not known.
        preview: the last one; None without one, and when the job has ended.
        error_code: of a job that failed.
        ended_s: seconds since its end; None for a job under way.
    """

    request_id: str
    state: JobState
    age_s: float
    place: int | None = None
    wait_s: float | None = None
    unet_calls_done: int = 0
    unet_calls: int = 0
    steps_done: int = 0
    steps: int = 0
    seconds_left: float | None = None
    preview: PreviewPicture | None = None
    error_code: str | None = None
    ended_s: float | None = None

    @property
    def is_under_way(self) -> bool:
        """Return whether it waits or runs."""
        return self.state in (JobState.QUEUED, JobState.RUNNING)

    @property
    def is_waiting(self) -> bool:
        """Return whether it has not begun."""
        return self.state is JobState.QUEUED


def new_request_id() -> str:
    """Make an id for a request that has none."""
    return uuid.uuid4().hex


class TrackedJob:
    """A job from its request's coming to a while after its end.

    Args:
        key: of the job.
        keep_preview: keeps a preview of a job.

    Attributes:
        state: as far as it is noted here; `status` has it exactly.
        ended_at: time.monotonic; 0 until then.
        job: None as long as it is read, and when it has ended.
        error_code: of a job that failed.
        is_forgotten: whether its owner wants to see no more of it.
    """

    def __init__(self, key: JobKey, keep_preview: Callable[[JobKey, PreviewPicture], None]) -> None:
        self.key = key
        self.state = JobState.QUEUED
        self.ended_at = 0.0
        self.job: AnyJob | None = None
        self.error_code: str | None = None
        self.is_forgotten = False
        self._came_at = time.monotonic()
        self._progress: ImageProgress | None = None
        self._steps = 0
        self._cost = 0.0  # of all its work, as `Work.whole_cost`
        self._keep_preview = keep_preview
        self._watched_until = 0.0
        self._is_cancelled = False
        self._cancelling = threading.Lock()
        self._reader = _current_task()  # until the job is in the queue
        self._is_reading_stopped = False

    def listen(self, listener: Listener | None) -> Listener:
        """Return a listener that notes the progress and passes it on to another."""
        is_for_listener = False  # the preview of the call that is reported next

        def wants_preview(calls_done: int) -> bool:
            nonlocal is_for_listener
            is_for_listener = listener is not None and listener.wants_preview(calls_done)
            return is_for_listener or time.monotonic() < self._watched_until

        def on_progress(progress: ImageProgress) -> None:
            nonlocal is_for_listener
            self._progress = ImageProgress(progress.unet_calls_done, progress.unet_calls)
            if progress.preview is not None:
                self._keep_preview(self.key, progress.preview)
            if listener is not None:
                listener.on_progress(progress if is_for_listener else self._progress)
            is_for_listener = False

        return Listener(on_progress, wants_preview)

    def accept(self, job: AnyJob) -> None:
        """Note that the job is in the queue."""
        with self._cancelling:
            self._reader = None
            self.job = job
            self._steps = job.steps
            self._cost = job.work.whole_cost
            if self._is_cancelled:
                job.future.cancel()

    def cancel(self) -> None:
        """Cancel the job, also while its request is read; one that is finished stays so."""
        with self._cancelling:
            self._is_cancelled = True
            if self.job is not None:
                self.job.future.cancel()
            elif self._reader is not None:
                self._reader.get_loop().call_soon_threadsafe(self._stop_reading)

    @property
    def has_begun(self) -> bool:
        """Return whether it has left the queue, and is not done."""
        job = self.job
        return job is not None and job.begun_at is not None

    def stop(self) -> None:
        """End the job with its answer as far as it is; cancel it where there is nothing of that."""
        with self._cancelling:
            if self.job is not None and self.job.stop():
                return
        self.cancel()

    def watch(self) -> None:
        """Want previews for a while."""
        self._watched_until = time.monotonic() + WATCHED_S

    async def read(self, reading: Awaitable[T]) -> T:
        """Wait until the request is read.

        Raises:
            JobCancelledError: its owner has cancelled it.
        """
        try:
            return await reading
        except asyncio.CancelledError:
            if (error := self._cancelled_error()) is not None:
                raise error from None
            raise

    async def answer(self, job: QueuedJob[Answer]) -> Answer:
        """Wait for the answer of the accepted job.

        Raises:
            JobCancelledError: its owner has cancelled it.
            LpwSdxlError: the job failed.
        """
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            if (error := self._cancelled_error()) is not None:
                raise error from None
            raise

    def end(self, state: JobState) -> None:
        """Note the end, and drop what only a job under way needs."""
        self.state = state
        self.ended_at = time.monotonic()
        self.job = self._reader = None

    def status(self, preview: PreviewPicture | None) -> JobStatus:
        """Describe the job now."""
        now = time.monotonic()
        job, state = self.job, self.state
        done, calls = 0, 0 if job is None else job.calls
        if self._progress is not None:
            done, calls = self._progress.unet_calls_done, self._progress.unet_calls
        begun_at = None if job is None else job.begun_at
        is_cancelled = self._is_cancelled if job is None else job.is_cancelled
        if state is JobState.QUEUED and is_cancelled:
            state = JobState.CANCELLED
        elif state is JobState.QUEUED and begun_at is not None:
            state = JobState.RUNNING
        is_waiting = state is JobState.QUEUED and job is not None
        return JobStatus(
            self.key.request_id,
            state,
            now - self._came_at,
            place=job.place.before if is_waiting and job and job.place else None,
            wait_s=job.place.wait_s if is_waiting and job and job.place else None,
            unet_calls_done=done,
            unet_calls=calls,
            steps_done=self._steps * done // calls if calls else 0,
            steps=self._steps,
            seconds_left=self._seconds_left(now) if done else None,
            preview=preview,
            error_code=self.error_code,
            ended_s=now - self.ended_at if self.ended_at else None,
        )

    def _seconds_left(self, now: float) -> float | None:
        """Estimate the seconds that are left, by what its calls cost: later ones may be larger."""
        job = self.job
        if job is None or job.begun_at is None:
            return None
        left = job.work.whole_cost
        done = self._cost - left
        return (now - job.begun_at) / done * left if done > 0 else None

    def _cancelled_error(self) -> JobCancelledError | None:
        """Return the error for the owner's cancellation, if that is why the current task ends.

        For the handler of a CancelledError. The cancellation of the task is then over.
        """
        task = _current_task()
        if task is None or not self._is_cancelled or task.cancelling() > self._is_reading_stopped:
            return None  # another cancellation came, too
        if self._is_reading_stopped:
            task.uncancel()
        return JobCancelledError("its owner has cancelled this image")

    def _stop_reading(self) -> None:
        """Cancel the task that reads the request, if it still does; in its event loop."""
        if self._reader is not None and not self._is_reading_stopped:
            self._is_reading_stopped = True
            self._reader.cancel()


def _current_task() -> asyncio.Task[object] | None:
    """Return the task that is running; None outside an event loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
