"""Unexpected errors: their kinds, and which jobs fail by them.

Where work for several jobs fails, it is tried again for fewer of them, so that only those jobs fail
for which it fails even alone.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TypeVar

import torch

from lpw_sdxl.engine.queued_job import AnyJob
from lpw_sdxl.errors import GenerationError, LpwSdxlError, OutOfMemoryError

SomeJob = TypeVar("SomeJob", bound=AnyJob)

logger = logging.getLogger(__name__)

OUT_OF_MEMORY_MESSAGE = (
    "this image does not fit into the memory that the device has left; a smaller size or a"
    " shorter prompt may"
)
OUT_OF_MEMORY_WORDS = (  # torch has no class for these errors; none of them harms the device
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no memory for its handle
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN, without memory for a workspace
)


class DeviceLostError(Exception):
    """The device does not respond any more: the process must end, and a new one start."""


class Fault(Enum):
    """A kind of unexpected error."""

    OUT_OF_MEMORY = auto()
    DEVICE_LOST = auto()
    OTHER = auto()


def classify(error: Exception) -> Fault:
    """Return the kind of fault that an error is."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Fault.OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and any(
        words in str(error) for words in OUT_OF_MEMORY_WORDS
    ):
        return Fault.OUT_OF_MEMORY
    if isinstance(error, torch.AcceleratorError):
        return Fault.DEVICE_LOST  # a CUDA context that has failed once fails for ever
    return Fault.OTHER


def client_error(error: Exception) -> LpwSdxlError:
    """Convert an error to one of ours, whose message a client may read."""
    if isinstance(error, LpwSdxlError):
        return error
    if classify(error) is Fault.OUT_OF_MEMORY:
        return OutOfMemoryError(OUT_OF_MEMORY_MESSAGE)
    return GenerationError("this image failed on the server; see its log")


class Isolation:
    """A runner of work for jobs in which one job's failure fails no other job.

    Args:
        device: on which the work is done.
        fail: ends a job with an error.
        note_out_of_memory: called after every lack of memory.
    """

    def __init__(
        self,
        device: torch.device,
        fail: Callable[[AnyJob, LpwSdxlError], None],
        note_out_of_memory: Callable[[], None],
    ) -> None:
        self._device = device
        self._fail = fail
        self._note_out_of_memory = note_out_of_memory

    def run_for_all(
        self,
        jobs: Sequence[SomeJob],
        work: Callable[[Sequence[SomeJob]], None],
        last_resort: Callable[[Sequence[SomeJob]], None] | None = None,
    ) -> None:
        """Run work for all jobs at once; where that fails, for fewer, down to each alone.

        Args:
            jobs: at least one.
            work: it must leave the jobs for which it fails unchanged.
            last_resort: other work for a job that lacks memory even alone.

        Raises:
            DeviceLostError: if the device does not respond any more.
        """
        error = self._attempt(jobs, work)
        if error is None:
            return
        fault = classify(error)
        if len(jobs) > 1:
            part = (len(jobs) + 1) // 2 if fault is Fault.OUT_OF_MEMORY else 1
            for start in range(0, len(jobs), part):
                self.run_for_all(jobs[start : start + part], work, last_resort)
            return
        if fault is Fault.OUT_OF_MEMORY and last_resort is not None:
            self.run_for_all(jobs, last_resort)
            return
        self._fail(jobs[0], client_error(error))

    def run_for_one(self, job: AnyJob, work: Callable[[], None]) -> None:
        """Run one job's own work; an error fails that job only.

        Raises:
            DeviceLostError: if the device does not respond any more.
        """
        self.run_for_all([job], lambda _: work())

    def _attempt(
        self, jobs: Sequence[SomeJob], work: Callable[[Sequence[SomeJob]], None]
    ) -> Exception | None:
        """Run work once; return its error, without the frames that hold tensors, or None."""
        try:
            work(jobs)
            return None
        except DeviceLostError:
            raise  # from one job's own part of this work
        except Exception as caught:  # whatever it is, it must not fail other jobs
            error = caught
            fault = classify(error)
            if isinstance(error, LpwSdxlError):
                pass
            elif fault is Fault.OUT_OF_MEMORY:
                logger.warning("no memory for %d jobs at once", len(jobs))
            else:
                logger.warning("work for %d jobs failed", len(jobs), exc_info=error)
        # Only outside of the except block are the frames freed, and their tensors with them.
        error.with_traceback(None)
        error.__context__ = error.__cause__ = None
        if fault is Fault.OUT_OF_MEMORY:
            self._note_out_of_memory()
            gc.collect()
        self._check_device(fault)
        return error

    def _check_device(self, fault: Fault) -> None:
        """Check that the device still responds.

        Raises:
            DeviceLostError: if it does not.
        """
        if fault is Fault.DEVICE_LOST:
            raise DeviceLostError
        if self._device.type == "cuda":
            try:
                torch.cuda.synchronize(self._device)
                torch.cuda.empty_cache()
            except RuntimeError as lost:
                raise DeviceLostError from lost
