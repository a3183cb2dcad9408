"""The jobs that wait: bounded by number, by cost and by what can be done in time.

Any thread may put a job in; the loop's thread takes jobs out. It knows nothing of the device.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

from lpw_sdxl.engine.cost import NO_WORK, Pace, Work
from lpw_sdxl.engine.queued_job import AnyJob, QueuePlace
from lpw_sdxl.errors import OverloadedError, UnavailableError
from lpw_sdxl.settings import Settings

MAX_RETRY_AFTER_S = 120  # at the longest, a refused client is sent away for so long
MAX_CANDIDATES = 256  # waiting jobs among which the policy chooses: more than can begin in one turn


@dataclass(frozen=True)
class Load:
    """The load of jobs that are accepted and not finished.

    Attributes:
        jobs: their number.
        work: that is left for them, in UNet calls that are shared as well as possible.
        rows: of a UNet call with all that have begun.
    """

    jobs: int
    work: Work
    rows: int = 0


class JobQueue:
    """Waiting jobs, oldest first.

    Args:
        settings: the bounds on jobs that are accepted and not finished.
        max_rows: of a full UNet call.
        pace: of the device.
        active_load: counts the load of jobs that have begun and are not finished.
    """

    def __init__(
        self, settings: Settings, max_rows: int, pace: Pace, active_load: Callable[[], Load]
    ) -> None:
        self._max_jobs = settings.max_queued_jobs
        self._room_for_others = settings.max_queued_jobs // 8
        self._max_cost = settings.max_queued_cost  # megapixels of UNet rows
        self._max_rows = max_rows
        self._pace = pace
        self._active_load = active_load
        self._jobs: list[AnyJob] = []  # guarded by _changed, like all below
        self._work = NO_WORK
        self._places = 0  # of jobs whose requests are being read
        self._is_closed = False
        self._promised_until = 0.0  # time.monotonic: the latest time a client was sent away until
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Count the jobs that wait."""
        return len(self._jobs)

    @property
    def is_closed(self) -> bool:
        """Return whether the queue refuses all jobs."""
        return self._is_closed

    @property
    def load(self) -> Load:
        """Count all jobs accepted and not finished, and the work that is left for them."""
        active = self._active_load()
        return Load(active.jobs + len(self._jobs), active.work.plus(self._work))

    @contextmanager
    def place(self, *, leaves_room: bool = False) -> Iterator[None]:
        """Keep a place for one job while its request is read, until it was put or is given up.

        Args:
            leaves_room: whether it is refused a little before the queue is full, as one of many
                that a single client sends at once.

        Raises:
            OverloadedError: if the queue is full.
            UnavailableError: if it is closed.
        """
        with self._changed:
            self._check_open(self._places, self._room_for_others if leaves_room else 0)
            self._places += 1
        try:
            yield
        finally:
            with self._changed:
                self._places -= 1

    def put(self, job: AnyJob) -> None:
        """Add a job.

        Raises:
            OverloadedError: if there is no room for it, or the jobs before it take too long.
            DeadlineError: if it could not be done within its `deadline_s` even alone.
            TimeLimitError: if it could not be done within the server's limit even alone.
            UnavailableError: if the queue is closed.
        """
        with self._changed:
            self._check_open()
            self._check_room(job)
            self._check_time(job)
            if self.load.jobs < self._max_jobs // 2:
                self._promised_until = 0.0  # there is room for all clients that were sent away
            self._jobs.append(job)
            self._work = self._work.plus(job.shared_work(self._max_rows))
            self._changed.notify()

    def wait(self) -> bool:
        """Wait until there is a job; return False if there is none and the queue is closed."""
        with self._changed:
            while not self._jobs and not self._is_closed:
                self._changed.wait()
            return bool(self._jobs)

    def take(self, choose: Callable[[Sequence[AnyJob]], list[int]]) -> list[AnyJob]:
        """Remove and return the jobs whose indexes `choose` returns, among the oldest."""
        with self._changed:
            chosen = {*self._choose(choose)}
            taken = [self._jobs[index] for index in sorted(chosen)]
            if taken:
                self._set([job for index, job in enumerate(self._jobs) if index not in chosen])
        return taken

    def peek(self, choose: Callable[[Sequence[AnyJob]], list[int]]) -> bool:
        """Return whether `take` would return any job."""
        with self._changed:
            return bool(self._choose(choose))

    def drop_cancelled_and_late(self) -> list[AnyJob]:
        """Remove the jobs that are cancelled or late, and return them."""
        now = time.monotonic()
        dropped: list[AnyJob] = []
        kept: list[AnyJob] = []
        with self._changed:
            for job in self._jobs:
                (dropped if job.is_cancelled_or_late(now) else kept).append(job)
            if dropped:
                self._set(kept)
        return dropped

    def note_places(self) -> None:
        """Note the place of each job that waits in `Job.place`, by a pace in the jobs' favour."""
        with self._changed:
            active, before = self._active_load(), NO_WORK
            rows = active.rows
            # Where there is no room, the jobs under way make some one after the other.
            share = 1 / max(1, active.jobs)
            first = active.work.times(share)
            for index, job in enumerate(self._jobs):
                rows += job.most_rows
                has_room = rows <= self._max_rows
                wait_s = 0.0 if has_room else self._pace.seconds_for(first.plus(before))
                job.place = QueuePlace(index, wait_s)
                before = before.plus(job.shared_work(self._max_rows))

    def close(self) -> None:
        """Refuse all jobs from now on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def drain(self) -> list[AnyJob]:
        """Close the queue; remove and return all jobs that wait."""
        with self._changed:
            self._is_closed = True
            left = self._jobs
            self._set([])
            self._changed.notify_all()
        return left

    def _set(self, jobs: list[AnyJob]) -> None:
        self._jobs = jobs
        self._work = reduce(Work.plus, (job.shared_work(self._max_rows) for job in jobs), NO_WORK)

    def _choose(self, choose: Callable[[Sequence[AnyJob]], list[int]]) -> list[int]:
        return choose(self._jobs[:MAX_CANDIDATES]) if self._jobs else []

    def _check_open(self, places: int = 0, room: int = 0) -> None:
        if self._is_closed:
            raise UnavailableError("the engine is stopping; try another replica, or later")
        load = self.load
        jobs = load.jobs + places
        most = self._max_jobs - room
        if jobs >= most:
            one = load.work.times(1 / jobs)
            raise OverloadedError(
                f"the queue holds {jobs} of at most {most} jobs",
                retry_after_s=self._promise(self._seconds(one), self._seconds(one)),
            )

    def _check_room(self, job: AnyJob) -> None:
        work = self.load.work
        cost, held = job.work.whole_cost, work.whole_cost
        excess = held + cost - self._max_cost
        if excess > 0 and held > 0:  # a job that has none to wait for may begin
            raise OverloadedError(
                f"the queue holds {held:.0f} of at most {self._max_cost:.0f}"
                f" megapixel steps, and this image needs {cost:.0f}",
                retry_after_s=self._promise(
                    self._seconds(work.times(min(1.0, excess / held))),
                    self._seconds(job.shared_work(self._max_rows)),
                ),
            )

    def _check_time(self, job: AnyJob) -> None:
        """Refuse a job that can't be done in time, by a pace in the job's favour.

        While there is no other job it is accepted all the same: otherwise a pace measured at a bad
        moment would refuse every job for ever, and never be measured again.
        """
        if not self.load.jobs:
            return
        alone_s = self._pace.seconds_for(job.work)
        queue_s = self._pace.seconds_for(self._work)
        if alone_s is None or queue_s is None:
            return
        left_s = job.seconds_left(time.monotonic())
        if alone_s > left_s:
            raise job.late_error(
                f"this image takes about {alone_s:.1f} s here even alone, and {max(0, left_s):.1f}"
                " are left for it; fewer steps or a smaller size would be in time"
            )
        if queue_s + alone_s > left_s:
            raise OverloadedError(
                f"this image would be done in about {queue_s + alone_s:.1f} s, and {left_s:.1f} are"
                " left for it",
                retry_after_s=self._promise(
                    queue_s + alone_s - left_s, self._seconds(job.shared_work(self._max_rows))
                ),
            )

    def _seconds(self, work: Work) -> float:
        return self._pace.seconds_for(work) or 0.0

    def _promise(self, room_s: float, own_s: float) -> int:
        """Compute Retry-After: time until there is room, after all clients already sent away.

        With one answer for all, a crowd of clients would come back at the same moment, and nearly
        all of them would be refused again.

        Args:
            room_s: until there is room for one job, seconds.
            own_s: that the device takes for the job, after which there is room for the next.

        Returns:
            whole seconds, 1 to MAX_RETRY_AFTER_S.
        """
        now = time.monotonic()
        after_others = self._promised_until + own_s
        self._promised_until = min(max(now + room_s, after_others), now + MAX_RETRY_AFTER_S)
        # The difference of two large numbers may be a little more than what was added.
        return min(max(1, math.ceil(self._promised_until - now)), MAX_RETRY_AFTER_S)
