"""The enlarging of one turn of the loop: jobs leave their passes, pictures gain a tile.

At most one picture is decoded for its enlarging, and one tile enlarged, between two UNet calls;
what threads do meanwhile costs the device nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lpw_sdxl.engine.active import ActiveJobs
from lpw_sdxl.engine.cost import Pace
from lpw_sdxl.engine.faults import Isolation
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.metrics import EngineMetrics, Stage
from lpw_sdxl.engine.stages import Stages
from lpw_sdxl.engine.upscale_job import UpscaleJob
from lpw_sdxl.engine.upscale_policy import choose_tile
from lpw_sdxl.engine.watchdog import Pulse

MOST_BETWEEN_PASSES = 2  # jobs whose pixels are on their way to a second pass: bounds memory


@dataclass(frozen=True)
class EnlargingTurn:
    """The enlarging of each turn; for the loop's thread.

    Attributes:
        stages: do the work.
        active: the jobs under way.
        isolation: lets only those jobs fail that are hit.
        metrics: to count in.
        pulse: shows that the thread lives.
        pace: learns how long tiles take.
        before_answer: called when a job has left, and its caller does not know it yet.
    """

    stages: Stages
    active: ActiveJobs
    isolation: Isolation
    metrics: EngineMetrics
    pulse: Pulse
    pace: Pace
    before_answer: Callable[[], None]

    def run(self, *, beside_steps: bool) -> float:
        """Do what this turn has to enlarge.

        Args:
            beside_steps: whether UNet calls have their turns with these, so that tiles wait for
                jobs that have had less of the device.

        Returns:
            the seconds that it took, which are no UNet call's.
        """
        if all(job.is_resizing for job in self.active.on_the_way()):
            return 0.0
        self.stages.wait_for_device()
        started = time.monotonic()
        self._leave_passes()
        for job in self.active.upscales:
            if job.enlarging.is_ready:
                self.isolation.run_for_one(job, partial(self._answer, job))
        self._enlarge_tile(beside_steps=beside_steps)
        return time.monotonic() - started

    def _leave_passes(self) -> None:
        """Take jobs to their next pass where a call has room for it, the oldest first."""
        between = self.active.between_passes()
        under_way = sum(job.enlarging is not None and not job.enlarging.is_ready for job in between)
        may_begin = under_way < MOST_BETWEEN_PASSES
        for job in between:
            begins = job.is_enlarged_by_pixels and job.enlarging is None
            is_at_work = job.enlarging is not None and not job.enlarging.is_ready
            if is_at_work or (begins and not may_begin):
                continue
            if self.active.has_room_for_pass(job):
                may_begin = may_begin and not begins
                self._advance(job)

    def _enlarge_tile(self, *, beside_steps: bool) -> None:
        """Enlarge the tile of the job that has had least of the device, if it is due."""
        waiting = [
            job
            for job in self.active.on_the_way()
            if job.enlarging is not None and job.enlarging.wants_tile
        ]
        index = choose_tile(waiting, self.active.stepping() if beside_steps else ())
        if index is None:
            return
        job = waiting[index]
        enlarging = job.enlarging
        assert enlarging is not None
        assert enlarging.network is not None
        before, started = enlarging.tile_cost, time.monotonic()
        self._advance(job)
        seconds = time.monotonic() - started
        cost = max(0.0, before - enlarging.tile_cost)
        job.served += cost or enlarging.network.cost_per_tile
        if cost:
            self.pace.add_tile(cost, seconds)
        if isinstance(job, UpscaleJob) and job in self.active:
            job.report_tiles()

    def _advance(self, job: Job | UpscaleJob) -> None:
        """Do the next part of a job's enlarging."""
        self.pulse.beat()
        before = job.pass_index if isinstance(job, Job) else 0
        with self.metrics.timed(Stage.ENLARGE):
            self.isolation.run_for_all(
                [job], partial(self._run, in_tiles=False), partial(self._run, in_tiles=True)
            )
        if isinstance(job, Job) and job in self.active and job.pass_index != before:
            self.active.begin_pass(job)

    def _run(self, jobs: Sequence[Job | UpscaleJob], *, in_tiles: bool) -> None:
        [job] = jobs
        if isinstance(job, UpscaleJob):
            self.stages.enlarge_tile(job, in_tiles=in_tiles)
        else:
            self.stages.enlarge(job, in_tiles=in_tiles)

    def _answer(self, job: UpscaleJob) -> None:
        """Answer with an enlarged picture: its caller may send another request at once."""
        image = job.image
        if job not in self.active:
            return  # the watchdog has answered all jobs meanwhile
        self.active.remove(job)
        if job.is_cancelled:
            self.metrics.count_cancelled()
            return
        self.metrics.count_upscale()
        self.before_answer()
        job.answer(image)
