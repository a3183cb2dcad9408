"""The jobs under way and the order in which they are stepped, which policy.py decides.

It knows nothing of the device.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from lpw_sdxl.engine import policy
from lpw_sdxl.engine.cost import NO_WORK, Work
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.queue import Load
from lpw_sdxl.engine.queued_job import AnyJob
from lpw_sdxl.engine.upscale_job import UpscaleJob
from lpw_sdxl.engine.upscale_policy import admit_upscales


class ActiveJobs:
    """The jobs that have begun and are not finished, oldest first.

    The loop's thread changes them; other threads read their load, or drain them when that thread is
    dead.

    Args:
        max_rows: rows of one UNet call of native size.
        row_limit: rows of one UNet call, by size.
        mixing: which sets of LoRAs may share a call.
    """

    def __init__(
        self, max_rows: int, row_limit: policy.RowLimit, mixing: policy.LoraMixing
    ) -> None:
        self._max_rows = max_rows
        self._row_limit = row_limit
        self._mixing = mixing
        self._jobs: list[Job] = []
        self._upscales: list[UpscaleJob] = []
        self._passed_over = 0  # calls in a row that the least served job was not in

    def __len__(self) -> int:
        return len(self._jobs) + len(self._upscales)

    def __contains__(self, job: AnyJob) -> bool:
        return job in self._jobs or job in self._upscales

    def __iter__(self) -> Iterator[Job | UpscaleJob]:
        return iter([*self._jobs, *self._upscales])

    @property
    def upscales(self) -> list[UpscaleJob]:
        """List the pictures that are enlarged, oldest first."""
        return [*self._upscales]

    def load(self) -> Load:
        """Count the jobs, and the work still to be done for them."""
        jobs = [*self]
        work = (job.shared_work(self._max_rows) for job in jobs)
        rows = sum(job.most_rows for job in jobs)
        return Load(len(jobs), reduce(Work.plus, work, NO_WORK), rows)

    def admit(self, waiting: Sequence[AnyJob]) -> list[int]:
        """Choose which waiting jobs begin now: indexes into `waiting`, ascending."""
        images = {index: one for index, one in enumerate(waiting) if isinstance(one, Job)}
        upscales = {index: one for index, one in enumerate(waiting) if isinstance(one, UpscaleJob)}
        sizes = [one.spec.largest_pixels for one in upscales.values()]
        chosen = admit_upscales(sizes, [one.spec.largest_pixels for one in self._upscales])
        indexes = [*upscales]
        return sorted([*self._admit_images(images), *(indexes[place] for place in chosen)])

    def _admit_images(self, waiting: Mapping[int, Job]) -> list[int]:
        """Choose which waiting images begin now, by their indexes."""
        now, indexes = time.monotonic(), [*waiting]
        views = [job.view for job in waiting.values()]
        order = policy.order_to_begin(
            [view.chunks for view in views], [now - job.accepted_at for job in waiting.values()]
        )
        newcomers = [views[place] for place in order]
        begun = [job.view for job in self._jobs]
        # A guidance interval leaves out rows that come back.
        later = sum(job.spec.rows - job.rows for job in self._jobs)
        chosen = policy.admit(newcomers, begun, self._max_rows, self._row_limit, later_rows=later)
        return [indexes[order[place]] for place in chosen]

    def begin(self, jobs: Sequence[AnyJob]) -> None:
        """Add jobs; images are stepped once they are encoded."""
        begun = [*self]
        self._jobs += [job for job in jobs if isinstance(job, Job)]
        self._upscales += [job for job in jobs if isinstance(job, UpscaleJob)]
        for job in jobs:
            job.served = policy.served_at_first(job.first_cost, begun)

    def has_room_for_pass(self, job: Job) -> bool:
        """Return whether a job may begin its next pass: as `admit`, one call has rows for it.

        One job of a size can always begin: those that wait between their passes take no room.
        """
        following = job.spec.passes[job.pass_index + 1]
        waiting = self.finished()
        others = [one for one in self._jobs if one.size == following.size and one not in waiting]
        taken = sum(one.rows for one in others)
        return not taken or taken + following.rows <= self._row_limit(following.size)

    def begin_pass(self, job: Job) -> None:
        """Count a job that begins its next pass as one that begins now.

        Between its passes it was not stepped: neither may it now catch up with the others, nor wait
        until those that came meanwhile have caught up with it.
        """
        others = [other for other in self if other is not job]
        if others:
            job.served = policy.served_at_first(job.view.call_cost, others)

    def choose_group(self) -> list[Job]:
        """Choose the jobs of the next UNet call."""
        stepping = self.stepping()
        views = [job.view for job in stepping]
        chosen = policy.choose_group(views, self._row_limit, self._mixing, self._passed_over)
        is_passed_over = bool(chosen) and policy.least_served(views) not in chosen
        self._passed_over = self._passed_over + 1 if is_passed_over else 0
        return [stepping[index] for index in chosen]

    def note_served(self, group: Sequence[Job], views: Sequence[policy.JobView]) -> None:
        """Note that jobs were in a UNet call; the views are of the moment before."""
        after = policy.served_after(views)
        for job, served in zip(group, after, strict=True):
            job.served = served

    def stepping(self) -> list[Job]:
        """List the encoded jobs that have UNet calls left."""
        return [job for job in self._jobs if job.denoising and not job.is_denoised]

    def waiting_for_pictures(self, pixels: int) -> list[Job]:
        """List the jobs whose pictures are encoded next, oldest first.

        Args:
            pixels: that they have together at most, but for the first: the jobs under way wait.
        """
        chosen: list[Job] = []
        for job in self._jobs:
            size = job.size
            if job.is_waiting_for_picture:
                pixels -= size.height * size.width
                if chosen and pixels < 0:
                    break
                chosen.append(job)
        return chosen

    def finished(self) -> list[Job]:
        """List the jobs whose UNet calls are done and that are to be decoded."""
        return [job for job in self._jobs if job.is_denoised]

    def between_passes(self) -> list[Job]:
        """List the jobs that have left a pass and not begun the next one, oldest first."""
        return [job for job in self.finished() if not job.ends_with_pass]

    def on_the_way(self) -> list[Job | UpscaleJob]:
        """List the jobs whose pictures become larger: between two passes, and for themselves."""
        return [*self.between_passes(), *self._upscales]

    def has_picture_work(self) -> bool:
        """Return whether any job waits for the VAE or for an upscaler."""
        is_last = any(job.ends_with_pass for job in self.finished())
        others = (not job.is_resizing for job in self.on_the_way())
        return is_last or bool(self.waiting_for_pictures(0)) or any(others)

    def waits_for_threads(self) -> bool:
        """Return whether nothing is to be done before a picture is resized in a thread."""
        if not any(job.is_resizing for job in self):
            return False
        jobs = self.on_the_way()
        enlargings = [job.enlarging for job in jobs if job.enlarging is not None]
        is_idle = not any(one.wants_tile or one.is_ready for one in enlargings)
        return len(jobs) == len(self) and is_idle

    def remove(self, job: AnyJob) -> None:
        """Remove a job that is finished, cancelled or failed."""
        jobs: list[Any] = self._upscales if isinstance(job, UpscaleJob) else self._jobs
        jobs.remove(job)

    def drop_cancelled_and_late(self) -> list[Job | UpscaleJob]:
        """Remove the jobs that are cancelled or late, and return them."""
        now = time.monotonic()
        dropped = [job for job in self if job.is_cancelled_or_late(now)]
        for job in dropped:
            self.remove(job)
        return dropped

    def drain(self) -> list[Job | UpscaleJob]:
        """Remove all jobs, and return them."""
        jobs = [*self]
        self._jobs, self._upscales = [], []
        return jobs
