"""The one thread that owns the device: it begins jobs, steps them together and answers them.

One turn of the loop: drop jobs that are cancelled or late, begin those that fit, encode one
picture, step one group, decode those whose UNet calls are done. The file is long because it holds
one whole turn and the life of one thread: in two files, a turn would have to be read in both.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.engine import policy
from lpw_sdxl.engine.active import ActiveJobs
from lpw_sdxl.engine.capacity import Capacity
from lpw_sdxl.engine.cost import ENCODING_ROWS, Pace, step_cost
from lpw_sdxl.engine.enlarging_turn import EnlargingTurn
from lpw_sdxl.engine.faults import DeviceLostError, Isolation
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.memory import MemoryPlan
from lpw_sdxl.engine.metrics import EngineMetrics, Stage
from lpw_sdxl.engine.phases import Phase, choose_phase
from lpw_sdxl.engine.queue import JobQueue
from lpw_sdxl.engine.queued_job import AnyJob
from lpw_sdxl.engine.stages import Stages
from lpw_sdxl.engine.upscale_job import UpscaleJob
from lpw_sdxl.engine.watchdog import Pulse, Watchdog
from lpw_sdxl.errors import LpwSdxlError, UnavailableError
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.settings import Settings
from lpw_sdxl.weights.component import Component

logger = logging.getLogger(__name__)

ALL_PHASES = frozenset(Phase)
THREAD_WAIT_S = 0.005  # from one look to the next at a thread for which the device waits


class StepLoop:
    """The loop that steps jobs on one pipeline, in a thread of its own.

    Args:
        pipeline: the loaded model.
        plan: how memory is used.
        settings: bounds on the queue, and on how long one piece of work may last.
        metrics: to count in.
        on_death: called once, from another thread, with the reason if the thread dies or stalls.
        library: the LoRAs that jobs may name; None where there are none.

    Attributes:
        queue: any thread may put a job in.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        plan: MemoryPlan,
        settings: Settings,
        metrics: EngineMetrics,
        on_death: Callable[[str], None],
        *,
        library: LoraLibrary | None = None,
    ) -> None:
        self.stages = Stages(pipeline, plan, library)
        self._metrics = metrics
        self._pipeline = pipeline
        self._plan = plan
        self._pace = Pace()
        self._capacity = Capacity(plan)
        self._active = ActiveJobs(
            plan.max_rows, self._capacity.row_limit, _lora_mixing(self.stages.adapters, plan)
        )
        self.queue = JobQueue(settings, plan.max_rows, self._pace, self._active.load)
        self._launched_cost = 0.0  # of the UNet call of the turn before, on a CUDA device
        self._isolation = Isolation(pipeline.device, self._fail, self._note_out_of_memory)
        self._on_death = on_death
        self._pulse = Pulse()
        self._enlarging = EnlargingTurn(
            self.stages,
            self._active,
            self._isolation,
            metrics,
            self._pulse,
            self._pace,
            self._refresh_queue_gauges,
        )
        self._is_dead = False
        self._thread = threading.Thread(target=self._run, name="lpw-sdxl-engine", daemon=True)
        self._watchdog = Watchdog(self._thread, self._pulse, settings.stall_s, self._die)

    def start(self) -> None:
        """Start the thread, and the watchdog's."""
        self._thread.start()
        self._watchdog.start()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread runs and takes jobs."""
        return self._thread.is_alive() and not self.queue.is_closed and not self._is_dead

    @property
    def is_busy(self) -> bool:
        """Return whether any job has begun and is not finished."""
        return len(self._active) > 0

    def close(self, timeout_s: float) -> None:
        """Refuse new jobs, finish those accepted, and end the thread."""
        self._watchdog.stop()
        self.queue.close()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning("the engine was stopped before it had finished")
            self._abandon_all()

    def _run(self) -> None:
        """Serve until closed; answer every job whatever ends the thread."""
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._run_turn()
        except DeviceLostError:
            logger.critical("the device does not respond any more")
        except Exception:
            logger.exception("the engine's thread ended")
        finally:
            self._abandon_all()

    def _die(self, reason: str) -> None:
        """Answer all jobs, then report the death, so that a new process can be started."""
        self._is_dead = True
        self._abandon_all()
        self._on_death(reason)

    def _abandon_all(self) -> None:
        for job in [*self.queue.drain(), *self._active.drain()]:
            job.fail(UnavailableError("the engine stopped before this image was done"))

    def _wait_for_work(self) -> bool:
        """Wait until there is a job; return False if none will come: closed, or dead."""
        if self._is_dead:
            return False
        if self._active:
            return True
        self.stages.release_idle_memory()
        self._launched_cost = 0.0
        self._pulse.rest()
        self._refresh_metrics()
        return self.queue.wait()

    def _run_turn(self) -> None:
        """Run one turn of the loop."""
        self._pulse.beat()
        started = time.monotonic()
        self._drop_cancelled_and_late()
        phases = self._choose_phases()
        if Phase.ENCODE in phases:
            self._begin(self.queue.take(self._active.admit))
        cost = self._encode_pictures() if Phase.PICTURE in phases else 0.0
        if Phase.STEP in phases:
            cost += self._step(self._active.choose_group())
        if Phase.PICTURE in phases:
            self._finish_images()
            started += self._enlarging.run(beside_steps=Phase.STEP in phases)
        self._note_pace(cost, time.monotonic() - started)
        self._refresh_metrics()
        if self._active.waits_for_threads():
            time.sleep(THREAD_WAIT_S)

    def _note_pace(self, cost: float, seconds: float) -> None:
        """Add a turn to the pace.

        On CUDA a turn waits for the UNet call of the turn before, so that its seconds are that
        call's.

        Args:
            cost: of the turn's UNet call and pictures, megapixels of rows.
            seconds: that the turn took.
        """
        if self._pipeline.device.type == "cuda":
            cost, self._launched_cost = self._launched_cost, cost
        if cost:
            self._pace.add(cost, seconds)

    def _refresh_metrics(self) -> None:
        """Refresh all metrics of the state."""
        self._refresh_queue_gauges()
        self._metrics.sample(self._pipeline, self.stages.adapters)

    def _refresh_queue_gauges(self) -> None:
        """Refresh the queue gauges.

        This comes before answering, so that a client's next /metrics no longer counts its own job.
        """
        self._metrics.set_jobs(len(self.queue), len(self._active))

    def _choose_phases(self) -> frozenset[Phase]:
        """Choose the phases of this turn: all, or one where one component fits on the device."""
        if not self._plan.is_offloading:
            return ALL_PHASES
        work = {
            Phase.ENCODE: bool(self.queue.peek(self._active.admit)),
            Phase.STEP: bool(self._active.stepping()),
            Phase.PICTURE: self._active.has_picture_work(),
        }
        chosen = choose_phase(
            frozenset(phase for phase, has_work in work.items() if has_work),
            self.stages.phase,
            time.monotonic() - self.stages.offloader.since,
            self.stages.offloader.transfer_s,
        )
        return frozenset({chosen})

    def _drop_cancelled_and_late(self) -> None:
        """Drop the jobs that are cancelled or late."""
        for job in [*self.queue.drop_cancelled_and_late(), *self._active.drop_cancelled_and_late()]:
            job.release()
            if job.is_cancelled:
                self._metrics.count_cancelled()
            else:
                message = "the time for this image ran out before it was done"
                self._fail(job, job.late_error(message))

    def _begin(self, jobs: Sequence[AnyJob]) -> None:
        """Begin new jobs: encode the prompts of images together."""
        if not jobs:
            return
        started = time.monotonic()
        self._active.begin(jobs)
        for job in jobs:
            job.begun_at = started
            self._metrics.observe_wait(started - job.accepted_at)
        for upscale in (job for job in jobs if isinstance(job, UpscaleJob)):
            self.stages.begin_upscale(upscale)
        images = [job for job in jobs if isinstance(job, Job)]
        if images:
            with self._metrics.timed(Stage.ENCODE):
                self._isolation.run_for_all(images, self.stages.encode)
            self._metrics.count_prompts(images)

    def _encode_pictures(self) -> float:
        """Encode one picture, or a few small ones that are not larger together.

        Returns:
            the cost, megapixels of UNet rows.
        """
        native = self._pipeline.manifest.native_size
        jobs = self._active.waiting_for_pictures(native.height * native.width)
        for job in jobs:
            self._pulse.beat()
            with self._metrics.timed(Stage.PICTURE):
                in_tiles = partial(self._encode_picture, in_tiles=True)
                self._isolation.run_for_all([job], self._encode_picture, last_resort=in_tiles)
        return sum(step_cost(job.size, ENCODING_ROWS) for job in jobs)

    def _encode_picture(self, jobs: Sequence[Job], *, in_tiles: bool = False) -> None:
        [job] = jobs
        self.stages.encode_picture(job, in_tiles=in_tiles)

    def _step(self, group: Sequence[Job]) -> float:
        """Predict for a group and advance each of its jobs; return the step's cost, megapixels."""
        if not group:
            return 0.0
        self._pulse.beat()
        size = group[0].size
        # The next call of a job may have other rows.
        rows, views = sum(job.rows for job in group), [job.view for job in group]
        call_pixels = self._capacity.call_pixels
        with self._metrics.timed(Stage.STEP):
            self._isolation.run_for_all(
                group,
                lambda jobs: self._call_unet(jobs, self._capacity.row_limit(size)),
                last_resort=lambda jobs: self._call_unet(jobs, 1),
            )
        self._capacity.end()
        if any(job not in self._active for job in group):
            # A job that fails even alone shows nothing about the memory that others take.
            self._capacity.restore(call_pixels)
        self._metrics.observe_rows(rows)
        self._active.note_served(group, views)
        for job in group:
            if job in self._active:  # a job that fails is removed
                self.stages.report_progress(job)
        return step_cost(size, rows)

    def _call_unet(self, jobs: Sequence[Job], max_rows: int) -> None:
        rows = min(max_rows, sum(job.rows for job in jobs))
        self._capacity.begin(jobs[0].size, rows)
        self._metrics.count_calls(self.stages.step(jobs, max_rows, self._isolation.run_for_one))
        self._capacity.grow()

    def _finish_images(self) -> None:
        """Decode the jobs whose last pass is done, and answer them."""
        for job in self._active.finished():
            if job.ends_with_pass:
                self._pulse.beat()
                self._isolation.run_for_all(
                    [job], self._decode, last_resort=partial(self._decode, in_tiles=True)
                )

    def _decode(self, jobs: Sequence[Job], *, in_tiles: bool = False) -> None:
        """Decode one job, remove it, then answer: its caller may send another request at once."""
        [job] = jobs
        with self._metrics.timed(Stage.DECODE):
            pixels = self.stages.decode(job, in_tiles=in_tiles)
        if job not in self._active:
            return  # the watchdog has answered all jobs meanwhile
        self._active.remove(job)
        job.release()
        if job.is_cancelled:
            self._metrics.count_cancelled()
            return
        self._metrics.count_image()
        self._refresh_queue_gauges()
        job.finish(pixels)

    def _note_out_of_memory(self) -> None:
        self._metrics.count_out_of_memory()
        self.stages.release_memory()
        self._capacity.shrink()

    def _fail(self, job: AnyJob, error: LpwSdxlError) -> None:
        self._metrics.count_failed_job()
        job.release()
        if job in self._active:
            self._active.remove(job)
        self._refresh_queue_gauges()
        job.fail(error)


def _lora_mixing(adapters: Adapters | None, plan: MemoryPlan) -> policy.LoraMixing:
    """Build the rule for which sets of LoRAs may share a call."""
    if adapters is None:
        return policy.NO_MIXING
    return policy.LoraMixing(plan.max_lora_sets, partial(adapters.is_at_hand, Component.UNET))
