"""What an unexpected error means: another try, one job's end, or the device's; and who fails by it.

Work for several jobs that fails is tried again for fewer of them, so that exactly those fail who
can't be helped.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from enum import Enum, auto

import torch

from lpw_sdxl.engine.job import Job
from lpw_sdxl.errors import GenerationError, LpwSdxlError, OutOfMemoryError

logger = logging.getLogger(__name__)

NO_ROOM = (
    "this image does not fit into the memory that the device has left; a smaller size or a"
    " shorter prompt may"
)
NO_ROOM_WORDS = (  # torch has no class of its own for these; none of them harms the device
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no room for its handle
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",  # cuDNN, without room for a workspace
)


class DeviceLostError(Exception):
    """The device answers no more: the process must end, and a new one start."""


class Fault(Enum):
    """Kinds of unexpected errors."""

    OUT_OF_MEMORY = auto()
    DEVICE_LOST = auto()
    OTHER = auto()


def classify(error: Exception) -> Fault:
    """Say what kind of fault an error is."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Fault.OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and any(words in str(error) for words in NO_ROOM_WORDS):
        return Fault.OUT_OF_MEMORY
    if isinstance(error, torch.AcceleratorError):
        return Fault.DEVICE_LOST  # a CUDA context that has failed once fails for ever
    return Fault.OTHER


class Isolation:
    """Does work for jobs so that one job's failure stays its own.

    Args:
        device: that the work is done on.
        fail: ends a job with an error.
        note_no_room: hears of every lack of memory.
    """

    def __init__(
        self,
        device: torch.device,
        fail: Callable[[Job, LpwSdxlError], None],
        note_no_room: Callable[[], None],
    ) -> None:
        self._device = device
        self._fail = fail
        self._note_no_room = note_no_room

    def together(
        self,
        jobs: Sequence[Job],
        work: Callable[[Sequence[Job]], None],
        last_resort: Callable[[Sequence[Job]], None] | None = None,
    ) -> None:
        """Do the work for all jobs at once; where that fails, for fewer, down to each alone.

        Args:
            jobs: who it is for.
            work: what is done; it must leave a job that it fails for as it was.
            last_resort: for one job that lacks memory even alone.

        Raises:
            DeviceLostError: if the device answers no more.
        """
        error = self._attempt(jobs, work)
        if error is None:
            return
        fault = classify(error)
        if len(jobs) > 1:
            part = (len(jobs) + 1) // 2 if fault is Fault.OUT_OF_MEMORY else 1
            for start in range(0, len(jobs), part):
                self.together(jobs[start : start + part], work, last_resort)
            return
        if fault is Fault.OUT_OF_MEMORY and last_resort is not None:
            self.together(jobs, last_resort)
            return
        self._fail(jobs[0], _told(error, fault))

    def alone(self, job: Job, work: Callable[[], None]) -> None:
        """Do one job's own work; an error fails that job and nobody else.

        Raises:
            DeviceLostError: if the device answers no more.
        """
        self.together([job], lambda _: work())

    def _attempt(
        self, jobs: Sequence[Job], work: Callable[[Sequence[Job]], None]
    ) -> Exception | None:
        """Do the work once; give its error, without the frames that hold tensors."""
        try:
            work(jobs)
            return None
        except DeviceLostError:
            raise  # from a job's own part of this work
        except Exception as caught:  # whatever it is, it must not reach the others
            error = caught
            fault = classify(error)
            if isinstance(error, LpwSdxlError):
                pass
            elif fault is Fault.OUT_OF_MEMORY:
                logger.warning("no memory for %d jobs at once", len(jobs))
            else:
                logger.warning("work for %d jobs failed", len(jobs), exc_info=error)
        # Only outside of the except block do the frames go, and with them their tensors.
        error.with_traceback(None)
        error.__context__ = error.__cause__ = None
        if fault is Fault.OUT_OF_MEMORY:
            self._note_no_room()
            gc.collect()
        self._check_device(fault)
        return error

    def _check_device(self, fault: Fault) -> None:
        """Find out whether the device still answers."""
        if fault is Fault.DEVICE_LOST:
            raise DeviceLostError
        if self._device.type == "cuda":
            try:
                torch.cuda.synchronize(self._device)
                torch.cuda.empty_cache()
            except RuntimeError as silence:
                raise DeviceLostError from silence


def _told(error: Exception, fault: Fault) -> LpwSdxlError:
    """Put an error into words for a client."""
    if isinstance(error, LpwSdxlError):
        return error
    if fault is Fault.OUT_OF_MEMORY:
        return OutOfMemoryError(NO_ROOM)
    return GenerationError("this image failed on the server; see its log")
