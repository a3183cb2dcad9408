"""The one thread that owns the device: it lets jobs in, steps them together, hands images out.

One turn of the loop: drop who has left or is late, begin who fits, step one group, decode who is
done. The file is long because all that is left in it is one turn and one thread's life: in two
files a turn would have to be read in both.
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
from lpw_sdxl.engine.cost import Pace
from lpw_sdxl.engine.faults import DeviceLostError, Isolation
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.memory import MemoryPlan
from lpw_sdxl.engine.metrics import EngineMetrics, Stage
from lpw_sdxl.engine.policy import Phase
from lpw_sdxl.engine.queue import JobQueue
from lpw_sdxl.engine.stages import Stages
from lpw_sdxl.engine.watchdog import Pulse, Watchdog
from lpw_sdxl.errors import LpwSdxlError, UnavailableError
from lpw_sdxl.lora.adapters import Adapters
from lpw_sdxl.lora.library import LoraLibrary
from lpw_sdxl.settings import Settings
from lpw_sdxl.weights.component import Component

logger = logging.getLogger(__name__)

ALL_PHASES = frozenset(Phase)


class StepLoop:
    """Steps jobs on one pipeline in a thread of its own.

    Args:
        pipeline: the loaded model.
        plan: how memory is used.
        settings: what is taken on, and how long one piece of work may last.
        metrics: what is counted for Prometheus.
        on_death: called once if the thread dies or stalls, with what happened, from another thread.
        library: the LoRAs that jobs may name; None where there are none.

    Attributes:
        queue: where jobs are put in, by any thread.
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
            plan.max_rows, self._capacity.rows, _lora_mixing(self.stages.adapters, plan)
        )
        self.queue = JobQueue(settings, plan.max_rows, self._pace, self._active.load)
        self._launched_cost = 0.0  # of the turn before, on a CUDA device
        self._isolation = Isolation(pipeline.device, self._fail, self._note_no_room)
        self._on_death = on_death
        self._pulse = Pulse()
        self._is_dead = False
        self._thread = threading.Thread(target=self._run, name="lpw-sdxl-engine", daemon=True)
        self._watchdog = Watchdog(self._thread, self._pulse, settings.stall_s, self._die)

    def start(self) -> None:
        """Start the thread, and the one that watches it."""
        self._thread.start()
        self._watchdog.start()

    @property
    def is_alive(self) -> bool:
        """Tell whether the thread runs and takes jobs."""
        return self._thread.is_alive() and not self.queue.is_closed and not self._is_dead

    def close(self, timeout_s: float) -> None:
        """Take no more jobs, finish those taken, and end the thread."""
        self._watchdog.stop()
        self.queue.close()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.warning("the engine was stopped before it had finished")
            self._abandon_all()

    def _run(self) -> None:
        """Serve until closed; whatever ends the thread, no caller is left waiting."""
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._turn()
        except DeviceLostError:
            logger.critical("the device answers no more")
        except Exception:
            logger.exception("the engine's thread ended")
        finally:
            self._abandon_all()

    def _die(self, reason: str) -> None:
        """Answer everybody, then tell whoever can start a new process."""
        self._is_dead = True
        self._abandon_all()
        self._on_death(reason)

    def _abandon_all(self) -> None:
        for job in [*self.queue.drain(), *self._active.drain()]:
            job.fail(UnavailableError("the engine stopped before this image was done"))

    def _wait_for_work(self) -> bool:
        """Sleep until there is a job; False when closing and none is left, or all were answered."""
        if self._is_dead:
            return False
        if self._active:
            return True
        self.stages.rest()
        self._launched_cost = 0.0
        self._pulse.rest()
        self._observe()
        return self.queue.wait()

    def _turn(self) -> None:
        """Do one turn of the loop."""
        self._pulse.beat()
        started = time.monotonic()
        self._drop_departed()
        phases = self._phases()
        if Phase.ENCODE in phases:
            self._begin(self.queue.take(self._active.admit))
        cost = self._step(self._active.next_group()) if Phase.STEP in phases else 0.0
        if Phase.DECODE in phases:
            for job in self._active.finished():
                self._finish(job)
        self._note_pace(cost, time.monotonic() - started)
        self._observe()

    def _note_pace(self, cost: float, seconds: float) -> None:
        """Note what a turn cost.

        On CUDA a turn waits for the call of the turn before: its time is that one's.
        """
        if self._pipeline.device.type == "cuda":
            cost, self._launched_cost = self._launched_cost, cost
        if cost:
            self._pace.add(cost, seconds)

    def _observe(self) -> None:
        """Bring the metrics up to date that tell how things are now."""
        self._observe_jobs()
        self._metrics.look(self._pipeline, self.stages.adapters)

    def _observe_jobs(self) -> None:
        """Tell how many jobs there are: who asks for it when he is answered finds his own gone."""
        self._metrics.queue(len(self.queue), len(self._active))

    def _phases(self) -> frozenset[Phase]:
        """Choose what is done in this turn: all, or what the component on the device can do."""
        if not self._plan.is_offloading:
            return ALL_PHASES
        work = {
            Phase.ENCODE: bool(self.queue.peek(self._active.admit)),
            Phase.STEP: len(self._active.finished()) < len(self._active),
            Phase.DECODE: bool(self._active.finished()),
        }
        chosen = policy.choose_phase(
            frozenset(phase for phase, has_work in work.items() if has_work),
            self.stages.phase,
            time.monotonic() - self.stages.residence.since,
            self.stages.residence.travel_s,
        )
        return frozenset({chosen})

    def _drop_departed(self) -> None:
        """Drop the jobs whose caller has gone or whose time has run out."""
        for job in [*self.queue.sweep(), *self._active.sweep()]:
            if job.is_cancelled:
                self._metrics.departed()
            else:
                late = "the time for this image ran out before it was done"
                self._fail(job, job.late_error(late))

    def _begin(self, jobs: Sequence[Job]) -> None:
        """Encode the prompts of new jobs together; they are served from now on."""
        if not jobs:
            return
        started = time.monotonic()
        self._active.begin(jobs)
        for job in jobs:
            self._metrics.waited(started - job.accepted_at)
        with self._metrics.timed(Stage.ENCODE):
            self._isolation.together(jobs, self.stages.encode)
        self._metrics.encoded(jobs)

    def _step(self, group: Sequence[Job]) -> float:
        """Predict for the group and advance each of its jobs; give what it cost."""
        if not group:
            return 0.0
        self._pulse.beat()
        size = group[0].spec.record.size
        call_pixels = self._capacity.call_pixels
        with self._metrics.timed(Stage.STEP):
            self._isolation.together(
                group,
                lambda jobs: self._call_unet(jobs, self._capacity.rows(size)),
                last_resort=lambda jobs: self._call_unet(jobs, 1),
            )
        self._capacity.end()
        if any(job not in self._active for job in group):
            # Who fails even alone says nothing of the others.
            self._capacity.restore(call_pixels)
        self._metrics.stepped(group)
        self._active.note_served(group)
        for job in group:
            if job in self._active:  # who fails is taken out
                self.stages.tell(job)
        return sum(job.step_cost for job in group)

    def _call_unet(self, jobs: Sequence[Job], max_rows: int) -> None:
        rows = min(max_rows, sum(job.spec.rows for job in jobs))
        self._capacity.begin(jobs[0].spec.record.size, rows)
        self._metrics.called(self.stages.step(jobs, max_rows, self._isolation.alone))
        self._capacity.grow()

    def _finish(self, job: Job) -> None:
        """Decode a job that has done its steps and hand the image out."""
        self._pulse.beat()
        self._isolation.together(
            [job], self._decode, last_resort=partial(self._decode, in_tiles=True)
        )

    def _decode(self, jobs: Sequence[Job], *, in_tiles: bool = False) -> None:
        """Decode one job, and answer when its place is free: its caller may ask again at once."""
        [job] = jobs
        with self._metrics.timed(Stage.DECODE):
            pixels = self.stages.decode(job, in_tiles=in_tiles)
        if job not in self._active:
            return  # everybody has been answered meanwhile
        self._active.remove(job)
        if job.is_cancelled:
            self._metrics.departed()
            return
        self._metrics.image_done()
        self._observe_jobs()
        job.finish(pixels)

    def _note_no_room(self) -> None:
        self._metrics.out_of_memory()
        self.stages.make_room()
        self._capacity.shrink()

    def _fail(self, job: Job, error: LpwSdxlError) -> None:
        self._metrics.job_failed()
        if job in self._active:
            self._active.remove(job)
        self._observe_jobs()
        job.fail(error)


def _lora_mixing(adapters: Adapters | None, plan: MemoryPlan) -> policy.LoraMixing:
    """Say which LoRAs may share a call."""
    if adapters is None:
        return policy.NO_MIXING
    return policy.LoraMixing(plan.max_lora_sets, partial(adapters.is_at_hand, Component.UNET))
