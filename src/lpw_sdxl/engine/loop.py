"""The one thread that owns the device: it lets jobs in, steps them together, hands images out.

One turn of the loop: drop who has left, begin who fits, step one group, decode who is done. An
error in a shared call is tried again job by job, so that only the job at fault fails.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from lpw_sdxl.conditioning import PromptPair
from lpw_sdxl.diffusion.decoder import decode
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.schedulers import make_scheduler
from lpw_sdxl.diffusion.step import Denoising, predict
from lpw_sdxl.engine import policy
from lpw_sdxl.engine.job import Job
from lpw_sdxl.errors import (
    DeadlineError,
    GenerationError,
    LpwSdxlError,
    OverloadedError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

LONGEST_RETRY_S = 60


@dataclass
class LoopCounters:
    """What the loop has done since it started; only its thread writes.

    Attributes:
        unet_calls: calls by the number of jobs they carried.
        images: finished.
        failed: jobs that ended in an error, deadlines included.
        left: jobs whose caller went away.
    """

    unet_calls: Counter[int] = field(default_factory=Counter)
    images: int = 0
    failed: int = 0
    left: int = 0


class StepLoop:
    """Steps jobs on one pipeline in a thread of its own.

    Args:
        pipeline: the loaded model.
        max_rows: UNet rows of one call.
        max_queued_jobs: jobs accepted and not finished.
        mixed_lengths: how rows whose prompts differ in length are stepped.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        max_rows: int,
        max_queued_jobs: int,
        mixed_lengths: policy.MixedLengths,
    ) -> None:
        self.counters = LoopCounters()
        self._pipeline = pipeline
        self._max_rows = max_rows
        self._max_queued_jobs = max_queued_jobs
        self._mixed_lengths = mixed_lengths
        self._waiting: list[Job] = []  # guarded by _changed
        self._active: list[Job] = []  # the thread's own; others only take its length
        self._is_closing = False  # guarded by _changed
        self._changed = threading.Condition()
        self._calls = 0
        self._seconds_per_image: float | None = None  # until there is one to go by
        self._last_image_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lpw-sdxl-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Tell whether the thread runs and takes jobs."""
        return self._thread.is_alive() and not self._is_closing

    @property
    def queued_jobs(self) -> int:
        """Count the jobs accepted and not finished."""
        return len(self._waiting) + len(self._active)

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            OverloadedError: if the queue has no room.
            UnavailableError: if the loop is closing or has ended.
        """
        with self._changed:
            if not self.is_alive:
                raise UnavailableError("the engine is stopping; ask another replica, or later")
            if self.queued_jobs >= self._max_queued_jobs:
                raise OverloadedError(
                    f"the queue holds {self.queued_jobs} of at most {self._max_queued_jobs} jobs",
                    retry_after_s=self._retry_after_s(),
                )
            self._waiting.append(job)
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Take no more jobs, finish those taken, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _retry_after_s(self) -> int:
        """Guess when there is room: after a part of the queue, by how long images took lately."""
        seconds = (self._seconds_per_image or 0.0) * self.queued_jobs / 4
        return min(max(1, math.ceil(seconds)), LONGEST_RETRY_S)

    def _run(self) -> None:
        """Serve until closed; whatever ends the thread, no caller is left waiting."""
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._turn()
        except Exception:
            logger.exception("the engine's thread ended")
        finally:
            with self._changed:
                self._is_closing = True
                leftover = [*self._waiting, *self._active]
                self._waiting.clear()
                self._active.clear()
            for job in leftover:
                job.fail(UnavailableError("the engine stopped before this image was done"))

    def _wait_for_work(self) -> bool:
        """Sleep until there is a job; False when closing and none is left."""
        with self._changed:
            while not self._waiting and not self._active:
                if self._is_closing:
                    return False
                self._changed.wait()
                self._last_image_at = time.monotonic()
        return True

    def _turn(self) -> None:
        """Do one turn of the loop."""
        self._drop_departed()
        self._begin(self._take_admitted())
        group = [
            self._active[i] for i in policy.choose_group([job.standing for job in self._active])
        ]
        if group:
            self._step(group)
        for job in [job for job in self._active if job.denoising and job.denoising.is_done]:
            self._finish(job)

    def _drop_departed(self) -> None:
        """Drop the jobs whose caller has gone or whose deadline has passed."""
        now = time.monotonic()
        with self._changed:
            jobs = [*self._waiting, *self._active]
            gone = [job for job in jobs if job.is_cancelled]
            late = [job for job in jobs if job.is_late(now) and not job.is_cancelled]
            dropped = {id(job) for job in (*gone, *late)}
            self._waiting = [job for job in self._waiting if id(job) not in dropped]
            self._active = [job for job in self._active if id(job) not in dropped]
        self.counters.left += len(gone)
        for job in late:
            self._fail(
                job,
                DeadlineError("deadline_s passed before the image was done", field="deadline_s"),
            )

    def _take_admitted(self) -> list[Job]:
        """Move the jobs that fit from the queue to the active ones."""
        with self._changed:
            chosen = policy.admit(
                [job.standing for job in self._waiting],
                [job.standing for job in self._active],
                self._max_rows,
            )
            admitted = [self._waiting[index] for index in chosen]
            chosen_set = set(chosen)
            self._waiting = [job for i, job in enumerate(self._waiting) if i not in chosen_set]
            self._active.extend(admitted)
        return admitted

    def _begin(self, jobs: Sequence[Job]) -> None:
        """Encode the prompts of new jobs together and draw their noise."""
        if jobs:
            self._together_or_alone(jobs, self._encode)

    def _encode(self, jobs: Sequence[Job]) -> None:
        pipeline = self._pipeline
        conditionings = pipeline.prompt_encoder.encode_many(
            [
                PromptPair(
                    *job.spec.prompts, job.spec.request.prompt_style, job.spec.request.clip_skip
                )
                for job in jobs
            ]
        )
        for job, conditioning in zip(jobs, conditionings, strict=True):
            record = job.spec.record
            counts = job.spec.counts
            logger.info(
                "encoded: %s prompt of %d tokens in %d chunks, negative prompt of %d in %d",
                record.request.prompt_style,
                *counts.prompt,
                *counts.negative_prompt,
            )
            job.denoising = Denoising(
                conditioning=conditioning,
                guidance=job.spec.guidance,
                scheduler=make_scheduler(
                    record.scheduler, pipeline.scheduler_config, record.request.num_inference_steps
                ),
                size=record.size,
                seed=record.seed,
                device=pipeline.device,
            )

    def _step(self, group: Sequence[Job]) -> None:
        """Predict for the group, in one UNet call where it can be, and advance each of its jobs."""
        self._together_or_alone(group, self._call_unet)

    def _call_unet(self, group: Sequence[Job]) -> None:
        denoisings = [job.denoising for job in group if job.denoising is not None]
        owners = [index for index, one in enumerate(denoisings) for _ in one.row_lengths]
        lengths = [length for one in denoisings for length in one.row_lengths]
        calls = policy.share_calls(lengths, self._mixed_lengths)
        predictions = predict(self._pipeline.unet, denoisings, calls)
        self._calls += 1
        self.counters.unet_calls.update(len({owners[row] for row in call}) for call in calls)
        for job, denoising, prediction in zip(group, denoisings, predictions, strict=True):
            job.last_step = self._calls
            self._guarded(job, partial(denoising.advance, prediction))

    def _finish(self, job: Job) -> None:
        """Decode a job that has done its steps and hand the image out."""
        self._active.remove(job)
        denoising = job.denoising
        assert denoising is not None
        self._guarded(job, partial(self._hand_out, job, denoising))
        now = time.monotonic()
        took = now - self._last_image_at
        before = took if self._seconds_per_image is None else self._seconds_per_image
        self._seconds_per_image = before + 0.1 * (took - before)
        self._last_image_at = now

    def _hand_out(self, job: Job, denoising: Denoising) -> None:
        pixels = decode(self._pipeline.vae, denoising.latents)
        self.counters.images += 1
        job.finish(pixels)

    def _together_or_alone(
        self, jobs: Sequence[Job], work: Callable[[Sequence[Job]], None]
    ) -> None:
        """Do the work for all jobs at once; if that fails, for each alone, failing who fails."""
        try:
            work(jobs)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach the others
            logger.warning("a call for %d jobs failed: %s", len(jobs), type(error).__name__)
        for job in jobs:
            self._guarded(job, partial(work, [job]))

    def _guarded(self, job: Job, work: Callable[[], None]) -> None:
        """Do one job's work; an error fails that job and nobody else."""
        try:
            work()
        except LpwSdxlError as error:
            self._fail(job, error)
        except Exception:
            logger.exception("a job failed")
            self._fail(job, GenerationError("this image failed on the server; see its log"))

    def _fail(self, job: Job, error: LpwSdxlError) -> None:
        self.counters.failed += 1
        if job in self._active:
            self._active.remove(job)
        job.fail(error)
