"""The jobs of a server by their owners: what each is doing, and how to cancel it.

An owner is any text; whose jobs a client may see is decided where that text is chosen. Jobs under
way are as many as the queue takes. Those that ended are kept for a minute, and previews up to a
number of bytes. Any thread may call.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

from lpw_sdxl.engine.progress import PreviewPicture
from lpw_sdxl.engine.tracked_job import JobKey, JobState, JobStatus, TrackedJob
from lpw_sdxl.errors import JobCancelledError, LpwSdxlError, RequestIdInUseError

KEPT_S = 60.0
MAX_ENDED = 1000  # kept at once; the oldest goes first
MAX_PREVIEW_BYTES = 32 * 1024 * 1024
PLACES_S = 0.25  # how old a job's place in the queue may be


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
        tracked = TrackedJob(key, self.keep_preview)
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
                if tracked.job is not None and not tracked.is_forgotten:
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
        if tracked is None or tracked.is_forgotten:
            return None
        if watches:
            tracked.watch()
        return self._describe([tracked])[0]

    def owned_by(self, owner: str) -> list[JobStatus]:
        """Describe the jobs of an owner: first those that ended, each group oldest first.

        Of two jobs of one id there is only the one that `find` finds.
        """
        with self._lock:
            self._forget_old()
            own = [
                job
                for key, job in chain(self._ended.items(), self._under_way.items())
                if key.owner == owner
                and not job.is_forgotten
                and self._under_way.get(key, job) is job
            ]
        return self._describe(own)

    def cancel(self, key: JobKey, *, forgets: bool = False) -> JobStatus | None:
        """Cancel a job, and describe it; None if its owner has none of this id.

        A job that has ended stays as it is.

        Args:
            key: of the job.
            forgets: whether the job is not shown any more.
        """
        with self._lock:
            tracked = self._under_way.get(key)
        if tracked is not None:
            tracked.cancel()
        status = self.find(key)
        if forgets:
            with self._lock:
                self._ended.pop(key, None)
                if tracked is not None:
                    tracked.is_forgotten = True
        return status

    def stop(self, owner: str, *, spares_waiting: bool = False) -> int:
        """End an owner's jobs under way with their images as far as they are.

        One that has not begun is cancelled, as there is nothing of it, and so is one whose caller
        takes none that is unfinished. Any other makes at least one UNet call.

        Args:
            owner: of the jobs.
            spares_waiting: whether the jobs that have not begun go on.

        Returns:
            the number of jobs that are ended.
        """
        with self._lock:
            own = [job for key, job in self._under_way.items() if key.owner == owner]
        ended = [one for one in own if one.has_begun] if spares_waiting else own
        for tracked in ended:
            tracked.stop()
        return len(ended)

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
