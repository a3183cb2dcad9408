"""The jobs that wait: bounded by number, by cost and by what can be done in time.

Any thread may put a job in; the loop's thread takes jobs out. Knows nothing of the device.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from lpw_sdxl.engine.cost import NO_WORK, Pace, Work
from lpw_sdxl.engine.job import Job
from lpw_sdxl.errors import OverloadedError, UnavailableError
from lpw_sdxl.settings import Settings

LONGEST_RETRY_S = 120
LOOK_AHEAD = 256  # waiting jobs that the policy is shown: more than can begin in one turn


@dataclass(frozen=True)
class Load:
    """What is accepted and not finished.

    Attributes:
        jobs: their number.
        work: still to be done for them, in calls shared as well as can be.
    """

    jobs: int
    work: Work


class JobQueue:
    """Waiting jobs, oldest first.

    Args:
        settings: what is taken on at most, of jobs accepted and not finished.
        max_rows: of a full UNet call.
        pace: how fast the device works.
        active_load: tells what has begun and is not finished.
    """

    def __init__(
        self, settings: Settings, max_rows: int, pace: Pace, active_load: Callable[[], Load]
    ) -> None:
        self._max_jobs = settings.max_queued_jobs
        self._max_cost = settings.max_queued_cost  # megapixels of UNet rows
        self._max_rows = max_rows
        self._pace = pace
        self._active_load = active_load
        self._jobs: list[Job] = []  # guarded by _changed, like all below
        self._work = NO_WORK
        self._is_closed = False
        self._promised_until = 0.0  # time.monotonic: when the last one told to come back will
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Count the jobs that wait."""
        return len(self._jobs)

    @property
    def is_closed(self) -> bool:
        """Tell whether no more jobs are taken."""
        return self._is_closed

    @property
    def load(self) -> Load:
        """Count all jobs accepted and not finished, and the work still to be done for them."""
        active = self._active_load()
        return Load(active.jobs + len(self._jobs), active.work.plus(self._work))

    def check_open(self) -> None:
        """Refuse at once what `put` would refuse whatever it costs, before any work is put into it.

        Raises:
            OverloadedError: if the queue is full.
            UnavailableError: if it is closed.
        """
        with self._changed:
            self._check_open()

    def put(self, job: Job) -> None:
        """Take a job in.

        Raises:
            OverloadedError: if there is no room for it, or its turn would come too late.
            DeadlineError: if it could not be done within its `deadline_s` even alone.
            TimeLimitError: if it could not be done within the server's limit even alone.
            UnavailableError: if the queue is closed.
        """
        with self._changed:
            self._check_open()
            self._check_room(job)
            self._check_time(job)
            if self.load.jobs < self._max_jobs // 2:
                self._promised_until = 0.0  # there is room for whoever was told to come back
            self._jobs.append(job)
            self._work = self._work.plus(job.shared_work(self._max_rows))
            self._changed.notify()

    def wait(self) -> bool:
        """Sleep until a job waits; False when closed and none does."""
        with self._changed:
            while not self._jobs and not self._is_closed:
                self._changed.wait()
            return bool(self._jobs)

    def take(self, choose: Callable[[Sequence[Job]], list[int]]) -> list[Job]:
        """Take out the jobs that `choose` points at, among the oldest."""
        with self._changed:
            chosen = {*self._choose(choose)}
            taken = [self._jobs[index] for index in sorted(chosen)]
            if taken:
                self._set([job for index, job in enumerate(self._jobs) if index not in chosen])
        return taken

    def peek(self, choose: Callable[[Sequence[Job]], list[int]]) -> bool:
        """Tell whether `take` would take any."""
        with self._changed:
            return bool(self._choose(choose))

    def sweep(self) -> list[Job]:
        """Take out the jobs whose time has run out or whose caller has gone, and give them."""
        now = time.monotonic()
        over: list[Job] = []
        kept: list[Job] = []
        with self._changed:
            for job in self._jobs:
                (over if job.is_over(now) else kept).append(job)
            if over:
                self._set(kept)
        return over

    def close(self) -> None:
        """Take no more jobs in."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def drain(self) -> list[Job]:
        """Close, and take out all that wait."""
        with self._changed:
            self._is_closed = True
            left = self._jobs
            self._set([])
            self._changed.notify_all()
        return left

    def _set(self, jobs: list[Job]) -> None:
        self._jobs = jobs
        self._work = reduce(Work.plus, (job.shared_work(self._max_rows) for job in jobs), NO_WORK)

    def _choose(self, choose: Callable[[Sequence[Job]], list[int]]) -> list[int]:
        return choose(self._jobs[:LOOK_AHEAD]) if self._jobs else []

    def _check_open(self) -> None:
        if self._is_closed:
            raise UnavailableError("the engine is stopping; ask another replica, or later")
        load = self.load
        if load.jobs >= self._max_jobs:
            one = Work(load.work.calls / load.jobs, load.work.cost / load.jobs)
            raise OverloadedError(
                f"the queue holds {load.jobs} of at most {self._max_jobs} jobs",
                retry_after_s=self._promise(self._seconds(one), self._seconds(one)),
            )

    def _check_room(self, job: Job) -> None:
        load = self.load
        cost = job.work.cost
        excess = load.work.cost + cost - self._max_cost
        if excess > 0 and load.work.cost > 0:  # where nothing is left to wait for, it may begin
            share = min(1.0, excess / load.work.cost)
            raise OverloadedError(
                f"the queue holds {load.work.cost:.0f} of at most {self._max_cost:.0f}"
                f" megapixel steps, and this image needs {cost:.0f}",
                retry_after_s=self._promise(
                    self._seconds(Work(load.work.calls * share, load.work.cost * share)),
                    self._seconds(job.shared_work(self._max_rows)),
                ),
            )

    def _check_time(self, job: Job) -> None:
        """Refuse what can't be in time, by a pace that counts in the job's favour.

        Where nobody would have to wait for it, it is tried all the same: a pace from a bad moment
        would else refuse everything for ever, and never be measured again.
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
        """Say when to come back: when there is room, behind all who were told so before.

        Told the same, a crowd would come back at once, and nearly all of it in vain.

        Args:
            room_s: until there is room for one.
            own_s: that the device takes for it, after which there is room for the next.

        Returns:
            whole seconds, 1 to LONGEST_RETRY_S.
        """
        now = time.monotonic()
        behind_others = self._promised_until + own_s
        self._promised_until = min(max(now + room_s, behind_others), now + LONGEST_RETRY_S)
        return max(1, math.ceil(self._promised_until - now))
