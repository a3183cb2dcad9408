"""The jobs of a server by their owners: what each is doing, and how to cancel it.

An owner is any text; whose jobs a client may see is decided where that text is chosen. Jobs under
way are as many as the queue takes. Those that ended are kept for a minute, and previews up to a
number of bytes. Any thread may call.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lpw_sdxl.engine.job import GeneratedImage, Job
from lpw_sdxl.engine.progress import ImageProgress, Listener, PreviewPicture
from lpw_sdxl.errors import JobCancelledError, LpwSdxlError, RequestIdInUseError

KEPT_S = 60.0
MAX_ENDED = 1000  # kept at once; the oldest goes first
MAX_PREVIEW_BYTES = 32 * 1024 * 1024
WATCHED_S = 10.0  # after a look at a job, previews are drawn for so long
PLACES_S = 0.25  # how old a job's place in the queue may be


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
        unet_calls_done: so far.
        unet_calls: in all; 0 as long as it is read.
        steps_done: so far, of `steps`.
        steps: of the request.
        seconds_left: expected; None where it is not known.
        preview: the last one; None without one, and when the job has ended.
        error_code: of a job that failed.
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


def new_request_id() -> str:
    """Make an id for a request that has none."""
    return uuid.uuid4().hex


class TrackedJob:
    """A job as the registry sees it, from its request's acceptance to its end."""

    def __init__(self, key: JobKey, registry: JobRegistry, came_at: float) -> None:
        self.key = key
        self.state = JobState.QUEUED
        self.came_at = came_at
        self.ended_at = 0.0
        self.job: Job | None = None
        self.progress: ImageProgress | None = None
        self.steps = 0
        self.error_code: str | None = None
        self._registry = registry
        self._watched_until = 0.0
        self._is_cancelled = False
        self._cancelling = threading.Lock()

    def listen(self, listener: Listener | None) -> Listener:
        """Return a listener that notes the progress and passes it on to another."""

        def wants_preview(calls_done: int) -> bool:
            is_wanted = listener is not None and listener.wants_preview(calls_done)
            return is_wanted or time.monotonic() < self._watched_until

        def on_progress(progress: ImageProgress) -> None:
            self.progress = ImageProgress(progress.unet_calls_done, progress.unet_calls)
            if progress.preview is not None:
                self._registry.keep_preview(self.key, progress.preview)
            if listener is not None:
                listener.on_progress(progress)

        return Listener(on_progress, wants_preview)

    def accept(self, job: Job) -> None:
        """Note that the job is in the queue."""
        with self._cancelling:
            self.job = job
            self.steps = job.spec.request.num_inference_steps
            if self._is_cancelled:
                job.future.cancel()

    def cancel(self) -> None:
        """Cancel the job; one that is finished stays so."""
        with self._cancelling:
            self._is_cancelled = True
            if self.job is not None:
                self.job.future.cancel()

    def watch(self) -> None:
        """Want previews for a while."""
        self._watched_until = time.monotonic() + WATCHED_S

    async def image(self) -> GeneratedImage:
        """Wait for the image of the accepted job.

        Raises:
            JobCancelledError: its owner has cancelled it.
            LpwSdxlError: the job failed.
        """
        assert self.job is not None
        try:
            return await asyncio.wrap_future(self.job.future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_cancelled and not (task and task.cancelling()):
                raise JobCancelledError("its owner has cancelled this image") from None
            raise

    def end(self, state: JobState) -> None:
        """Note the end, and drop what only a job under way needs."""
        self.state = state
        self.ended_at = time.monotonic()
        self.job = None

    def status(self, preview: PreviewPicture | None) -> JobStatus:
        """Describe the job now."""
        now = time.monotonic()
        job, state = self.job, self.state
        done, calls = 0, 0 if job is None else job.spec.unet_calls
        if self.progress is not None:
            done, calls = self.progress.unet_calls_done, self.progress.unet_calls
        begun_at = None if job is None else job.begun_at
        if state is JobState.QUEUED and begun_at is not None:
            state = JobState.RUNNING
        is_waiting = state is JobState.QUEUED and job is not None
        return JobStatus(
            self.key.request_id,
            state,
            now - self.came_at,
            place=job.place.before if is_waiting and job and job.place else None,
            wait_s=job.place.wait_s if is_waiting and job and job.place else None,
            unet_calls_done=done,
            unet_calls=calls,
            steps_done=self.steps * done // calls if calls else 0,
            steps=self.steps,
            seconds_left=(now - begun_at) / done * (calls - done) if done and begun_at else None,
            preview=preview,
            error_code=self.error_code,
        )


class JobRegistry:
    """All jobs under way, and those that ended a little while ago.

    Args:
        note_places: makes the queue note the place of each job that waits, in `Job.place`.
    """

    def __init__(self, note_places: Callable[[], None]) -> None:
        self._note_places = note_places
        self._lock = threading.Lock()  # of all below
        self._under_way: dict[JobKey, TrackedJob] = {}
        self._ended: OrderedDict[JobKey, TrackedJob] = OrderedDict()  # oldest first
        self._previews: OrderedDict[JobKey, PreviewPicture] = OrderedDict()  # oldest first
        self._preview_bytes = 0
        self._placed_at = 0.0

    def __len__(self) -> int:
        """Count the jobs under way."""
        return len(self._under_way)

    @property
    def preview_bytes(self) -> int:
        """Return the bytes of all previews."""
        return self._preview_bytes

    @contextmanager
    def follow(self, key: JobKey) -> Iterator[TrackedJob]:
        """Track one job until the block ends, which its end is.

        A job that is refused before `TrackedJob.accept` leaves no trace.

        Raises:
            RequestIdInUseError: the owner has a job of this id under way.
        """
        tracked = TrackedJob(key, self, time.monotonic())
        with self._lock:
            if key in self._under_way:
                raise RequestIdInUseError(
                    "request_id is that of a job under way; another one, or none, would be right",
                    field="request_id",
                )
            self._under_way[key] = tracked
            self._forget_old()
        state = JobState.FAILED
        try:
            yield tracked
            state = JobState.DONE
        except (asyncio.CancelledError, GeneratorExit, JobCancelledError):
            state = JobState.CANCELLED
            raise
        except LpwSdxlError as error:
            tracked.error_code = getattr(error, "code", None)
            raise
        finally:
            with self._lock:
                del self._under_way[key]
                self._drop_preview(key)
                if tracked.job is not None:
                    self._ended.pop(key, None)
                    self._ended[key] = tracked
                tracked.end(state)
                self._forget_old()

    def find(self, key: JobKey, *, watches: bool = False) -> JobStatus | None:
        """Describe a job; None if its owner has none of this id.

        Args:
            key: of the job.
            watches: whether its previews are wanted: they are drawn from now on, for a while.
        """
        with self._lock:
            self._forget_old()
            tracked = self._under_way.get(key) or self._ended.get(key)
        if tracked is None:
            return None
        if watches:
            tracked.watch()
        return self._describe([tracked])[0]

    def owned_by(self, owner: str) -> list[JobStatus]:
        """Describe the jobs of an owner: first those that ended, each group oldest first."""
        with self._lock:
            self._forget_old()
            every = [*self._ended.values(), *self._under_way.values()]
        return self._describe([one for one in every if one.key.owner == owner])

    def cancel(self, key: JobKey) -> JobStatus | None:
        """Cancel a job, and describe it; None if its owner has none of this id.

        A job that has ended stays as it is.
        """
        with self._lock:
            tracked = self._under_way.get(key)
        if tracked is not None:
            tracked.cancel()
        return self.find(key)

    def keep_preview(self, key: JobKey, preview: PreviewPicture) -> None:
        """Keep the newest preview of a job; the oldest of others go where bytes run out."""
        with self._lock:
            self._drop_preview(key)
            if key not in self._under_way:
                return
            self._previews[key] = preview
            self._preview_bytes += preview.byte_count
            while self._preview_bytes > MAX_PREVIEW_BYTES:
                self._drop_preview(next(iter(self._previews)))

    def _describe(self, jobs: list[TrackedJob]) -> list[JobStatus]:
        waiting = [one.job for one in jobs if one.job is not None and one.job.begun_at is None]
        now = time.monotonic()
        if waiting and (
            now - self._placed_at > PLACES_S or any(job.place is None for job in waiting)
        ):
            self._placed_at = now
            self._note_places()
        return [one.status(self._previews.get(one.key)) for one in jobs]

    def _drop_preview(self, key: JobKey) -> None:
        preview = self._previews.pop(key, None)
        if preview is not None:
            self._preview_bytes -= preview.byte_count

    def _forget_old(self) -> None:
        """Forget the jobs that ended long ago, or are too many."""
        before = time.monotonic() - KEPT_S
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if oldest.ended_at >= before and len(self._ended) <= MAX_ENDED:
                return
            del self._ended[oldest.key]
