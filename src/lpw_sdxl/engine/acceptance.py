"""The way of every request into the queue, and of its answer back to the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lpw_sdxl.engine.job_registry import JobRegistry
from lpw_sdxl.engine.progress import Listener
from lpw_sdxl.engine.queue import JobQueue
from lpw_sdxl.engine.queued_job import Answer, QueuedJob
from lpw_sdxl.engine.reading import PictureMemory
from lpw_sdxl.engine.tracked_job import JobKey


class Taken(Protocol):
    """A request that was read."""

    @property
    def picture_bytes(self) -> int:
        """Count the bytes of its picture, decoded."""


TakenT = TypeVar("TakenT", bound=Taken)


@dataclass(frozen=True)
class Order:
    """A request as its caller gave it to the engine.

    Attributes:
        key: of its job.
        listener: of its progress.
        leaves_room: as in `JobQueue.place`.
        memory: counts its picture.
    """

    key: JobKey
    listener: Listener | None
    leaves_room: bool
    memory: PictureMemory


class Acceptance:
    """The acceptance of requests, for any number of callers.

    Args:
        queue: of jobs.
        jobs: the registry of them.
    """

    def __init__(self, queue: JobQueue, jobs: JobRegistry) -> None:
        self._queue = queue
        self._jobs = jobs

    async def answer(
        self,
        order: Order,
        take: Callable[[], Awaitable[TakenT]],
        make: Callable[[TakenT, Listener], QueuedJob[Answer]],
    ) -> Answer:
        """Read a request, queue its job, and wait for the answer.

        Args:
            order: the request's surroundings.
            take: reads it; its caller should hold no picture's file meanwhile.
            make: makes its job of what was read.

        Raises:
            RequestError: the request is refused, and nothing was queued; or its owner cancelled it.
            GenerationError: the job failed, or the server's time for it ran out.
            UnavailableError: the engine is stopping.
        """
        with ExitStack() as releases, self._jobs.follow(order.key) as tracked:
            with self._queue.place(leaves_room=order.leaves_room):
                reading = take()
                del take
                taken = await tracked.read(reading)
                releases.callback(order.memory.grow, -taken.picture_bytes)
                job = make(taken, tracked.listen(order.listener))
                self._queue.put(job)
                job.prepare()
            tracked.accept(job)
            if order.listener is not None:
                order.listener.on_accepted()
            del taken  # the job lets go of its picture once it is encoded
            return await tracked.answer(job)
