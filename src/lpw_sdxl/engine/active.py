"""The jobs under way, and whose turn it is; what is decided of them is decided in policy.py.

Knows nothing of the device.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import reduce

from lpw_sdxl.engine import policy
from lpw_sdxl.engine.cost import NO_WORK, Work
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.queue import Load


class ActiveJobs:
    """The jobs that have begun and are not finished, oldest first.

    The loop's thread changes them; others take their load, or drain them when that thread is dead.

    Args:
        max_rows: rows of one UNet call of native size.
        capacity: rows of one UNet call, by size.
        mixing: which LoRAs may share a call.
    """

    def __init__(self, max_rows: int, capacity: policy.Capacity, mixing: policy.LoraMixing) -> None:
        self._max_rows = max_rows
        self._capacity = capacity
        self._mixing = mixing
        self._jobs: list[Job] = []
        self._passed_over = 0  # calls in a row that the least served job was not in

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job: Job) -> bool:
        return job in self._jobs

    def __iter__(self) -> Iterator[Job]:
        return iter([*self._jobs])

    def load(self) -> Load:
        """Count the jobs, and the work still to be done for them."""
        jobs = [*self]
        work = (job.shared_work(self._max_rows) for job in jobs)
        return Load(len(jobs), reduce(Work.plus, work, NO_WORK))

    def admit(self, waiting: Sequence[Job]) -> list[int]:
        """Choose which waiting jobs begin now: indexes into `waiting`, ascending."""
        come = [job.standing for job in waiting]
        begun = [job.standing for job in self._jobs]
        return policy.admit(come, begun, self._max_rows, self._capacity)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Take jobs in; they are served from now on."""
        stepping = [job.standing for job in self.stepping()]
        self._jobs.extend(jobs)
        for job in jobs:
            job.served = policy.served_at_first(job.standing, stepping)

    def next_group(self) -> list[Job]:
        """Choose the jobs of the next UNet call."""
        stepping = self.stepping()
        standings = [job.standing for job in stepping]
        chosen = policy.choose_group(standings, self._capacity, self._mixing, self._passed_over)
        is_passed_over = bool(chosen) and policy.least_served(standings) not in chosen
        self._passed_over = self._passed_over + 1 if is_passed_over else 0
        return [stepping[index] for index in chosen]

    def note_served(self, group: Sequence[Job]) -> None:
        """Note that jobs have had a call."""
        after = policy.served_after([job.standing for job in group])
        for job, served in zip(group, after, strict=True):
            job.served = served

    def stepping(self) -> list[Job]:
        """Give the jobs that have UNet calls left."""
        return [job for job in self._jobs if job.denoising and not job.denoising.is_done]

    def finished(self) -> list[Job]:
        """Give the jobs that have done their steps and are to be decoded."""
        return [job for job in self._jobs if job.denoising and job.denoising.is_done]

    def remove(self, job: Job) -> None:
        """Take one out: it is done, or has failed."""
        self._jobs.remove(job)

    def sweep(self) -> list[Job]:
        """Take out the jobs whose time has run out or whose caller has gone, and give them."""
        now = time.monotonic()
        over = [job for job in self._jobs if job.is_over(now)]
        for job in over:
            self._jobs.remove(job)
        return over

    def drain(self) -> list[Job]:
        """Take all out, and give them."""
        jobs, self._jobs = self._jobs, []
        return jobs
