"""Our service, which notes when each step of each job was done, and what is left on SIGUSR2.

`TIMED_STEPS` names a file for lines of `time.monotonic`, the job's id and its UNet calls; the file
with `.left` behind its name gets the numbers of the event loop's tasks, of jobs and of their
previews' bytes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[2]))

import bentoml

from lpw_sdxl.engine import ImageProgress, Listener
from lpw_sdxl.engine.tracked_job import TrackedJob
from service import LpwSdxl

__all__ = ["LpwSdxl"]

STEPS = Path(os.environ["TIMED_STEPS"])
_file = STEPS.open("a", buffering=1)
_listen = TrackedJob.listen


def _listen_and_note(job: TrackedJob, listener: Listener | None) -> Listener:
    inner = _listen(job, listener)

    def on_progress(progress: ImageProgress) -> None:
        _file.write(f"{time.monotonic()} {job.key.request_id} {progress.unet_calls_done}\n")
        inner.on_progress(progress)

    return Listener(on_progress, inner.wants_preview)


def _note_left(_signal: int, _frame: FrameType | None) -> None:
    tasks = len(asyncio.all_tasks(asyncio.get_running_loop()))
    jobs = bentoml.get_current_service().engine.jobs
    STEPS.with_suffix(".left").write_text(f"{tasks} {len(jobs)} {jobs.preview_bytes}\n")


TrackedJob.listen = _listen_and_note  # type: ignore[method-assign, assignment]
signal.signal(signal.SIGUSR2, _note_left)
