"""A thread for work in Python that leaves the interpreter to others half of the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
T = TypeVar("T")

LONGEST_REST_S = 0.5


class RestingPool(ThreadPoolExecutor):
    """One thread, which rests after a piece of work as long as that took, if more of it waits.

    The engine's thread needs the interpreter between any two kernels. Beside a thread that always
    wants it too, each of these moments would last a switch interval.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        super().__init__(1, thread_name_prefix=name)
        self._rest_until = 0.0

    def submit(
        self,
        work: Callable[Parameters, T],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[T]:
        """Do a piece of work when all before it is done."""
        return super().submit(self._do, partial(work, *args, **kwargs))

    def _do(self, work: Callable[[], T]) -> T:
        time.sleep(max(0.0, self._rest_until - time.monotonic()))
        began_s = time.thread_time()
        try:
            return work()
        finally:
            took_s = time.thread_time() - began_s
            self._rest_until = time.monotonic() + min(took_s, LONGEST_REST_S)
