"""What all jobs have: a time limit, a listener, a place in the queue, and one answer."""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

from lpw_sdxl.engine.cost import Work
from lpw_sdxl.engine.progress import ImageProgress, Listener
from lpw_sdxl.errors import DeadlineError, LpwSdxlError, TimeLimitError

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class QueuePlace(NamedTuple):
    """A place among the jobs that wait.

    Attributes:
        before: jobs that wait and came earlier.
        wait_s: expected until the job begins, seconds; None before the first UNet call of all.
    """

    before: int
    wait_s: float | None


class TimeLimits(NamedTuple):
    """The time that a job has.

    Attributes:
        accepted_at: when its request came (time.monotonic); both limits count from then.
        server_s: the server's own limit on any request, seconds.
        own_s: the request's own; None for none.
    """

    accepted_at: float
    server_s: float = math.inf
    own_s: float | None = None


class QueuedJob(ABC, Generic[Answer]):
    """One request from its acceptance to its answer; only the loop's thread changes it.

    Args:
        limits: of its time.
        listener: of its progress.

    Attributes:
        future: resolves to its answer or to one of our errors; cancelling it drops the job at the
            next step.
        served: device time that it has had, as policy.JobView counts it.
        begun_at: when it left the queue (time.monotonic); None until then.
        place: where it waits, as the queue last noted it; None before that.
    """

    def __init__(self, limits: TimeLimits, listener: Listener | None) -> None:
        self.accepted_at = limits.accepted_at
        self.listener = listener
        self.future: Future[Answer] = Future()
        self.served = 0.0
        self.begun_at: float | None = None
        self.place: QueuePlace | None = None
        self._answering = threading.Lock()
        self._is_answered = False  # guarded by _answering
        own_s = limits.own_s
        self._has_own_deadline = own_s is not None and own_s <= limits.server_s
        limit_s = min(limits.server_s, math.inf if own_s is None else own_s)
        self._deadline = limits.accepted_at + limit_s

    @property
    @abstractmethod
    def calls(self) -> int:
        """Count its calls of a network in all: of the UNet, or of an upscaler."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Count its steps in all, as its owner counts them."""

    @property
    @abstractmethod
    def most_rows(self) -> int:
        """Count the rows of the largest of its UNet calls; 0 where it makes none."""

    @property
    @abstractmethod
    def first_cost(self) -> float:
        """Compute the cost of its first call of a network, megapixels of rows."""

    @property
    @abstractmethod
    def work(self) -> Work:
        """Compute the work that is left, in UNet calls of the job's own."""

    @abstractmethod
    def shared_work(self, max_rows: int) -> Work:
        """Compute the work that is left, as its share of UNet calls of `max_rows` rows."""

    @property
    @abstractmethod
    def is_resizing(self) -> bool:
        """Return whether all that it waits for is a picture's resizing in a thread."""

    @abstractmethod
    def release(self) -> None:
        """Drop work in threads that nothing waits for any more."""

    def stop(self) -> bool:
        """End it with what there is of its answer; return whether that can be. For any thread."""
        return False

    def prepare(self) -> None:
        """Begin in threads what can be done while it waits; called once it is in the queue."""

    @property
    def is_cancelled(self) -> bool:
        """Return whether the caller has cancelled it."""
        return self.future.cancelled()

    def seconds_left(self, now: float) -> float:
        """Compute the seconds that are left for it at `now` (time.monotonic)."""
        return self._deadline - now

    def is_late(self, now: float) -> bool:
        """Return whether its time has run out at `now` (time.monotonic)."""
        return now > self._deadline

    def is_cancelled_or_late(self, now: float) -> bool:
        """Return whether it is cancelled, or late at `now` (time.monotonic)."""
        return self.is_cancelled or self.is_late(now)

    def late_error(self, message: str) -> LpwSdxlError:
        """Build the error for a late job: by the request's own limit or by the server's."""
        if self._has_own_deadline:
            return DeadlineError(message, field="deadline_s")
        return TimeLimitError(message)

    def report(self, progress: ImageProgress) -> None:
        """Report progress to the listener; log an error of its own and drop it."""
        if self.listener is None:
            return
        try:
            self.listener.on_progress(progress)
        except Exception:
            logger.exception("a listener to an image's progress failed")
            self.listener = None

    def answer(self, answer: Answer) -> None:
        """Answer, unless the job is cancelled or answered already."""
        if self._claim():
            self.future.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless the job is cancelled or answered already."""
        # The frames that an error passed through hold tensors; its message is all a caller needs.
        error.with_traceback(None)
        error.__context__ = error.__cause__ = None
        if self._claim():
            self.future.set_exception(error)

    def _claim(self) -> bool:
        """Return whether this call may answer: of the loop and the watchdog, only the first may."""
        with self._answering:
            if self._is_answered:
                return False
            self._is_answered = True
        return self.future.set_running_or_notify_cancel()


AnyJob = QueuedJob[Any]
