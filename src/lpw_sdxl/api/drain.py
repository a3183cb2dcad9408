"""SIGTERM in a worker: first unready, then closed, then done.

uvicorn stops accepting at once, but BentoML's supervisor still holds the listening socket: whoever
connects while the last requests are finished waits for them, and is reset when the supervisor ends.
Here the socket itself stops listening, so that a connection is refused and may safely go elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable
from functools import partial

from lpw_sdxl.api.listening import ListeningSocket, listening_sockets

logger = logging.getLogger(__name__)


class Drain:
    """Stands between SIGTERM and the handler that was there before, which is uvicorn's.

    Args:
        delay_s: seconds in which requests are still taken while `is_leaving` says otherwise, for a
            balancer that asks /readyz to notice.
        is_only_worker: whether nobody shares the listening socket, so that it may be closed.
    """

    def __init__(self, delay_s: float, *, is_only_worker: bool) -> None:
        self.is_leaving = False
        self._delay_s = delay_s
        self._is_only_worker = is_only_worker
        self._previous: object = None

    def install(self) -> None:
        """Take SIGTERM over; called in the running event loop, after uvicorn took it."""
        if threading.current_thread() is not threading.main_thread():
            return  # a test's application has no signals
        loop = asyncio.get_running_loop()
        self._previous = signal.signal(
            signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(self._begin, loop)
        )

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.is_leaving:
            return  # told twice
        self.is_leaving = True
        logger.info("SIGTERM: unready, and closed to new requests in %g s", self._delay_s)
        loop.call_later(self._delay_s, self._close, loop)

    def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        # In the turn after the next one: the next accepts who is waiting already. Whoever has sent
        # no request by then is reset all the same; a delay is what spares them. The sockets are
        # found beforehand: the search takes milliseconds, in which more would come.
        if self._is_only_worker:
            loop.call_soon(loop.call_soon, partial(stop_listening, listening_sockets()))
        loop.call_soon(loop.call_soon, self._hand_over)

    def _hand_over(self) -> None:
        if callable(self._previous):
            self._previous(signal.SIGTERM, None)


def stop_listening(sockets: Iterable[ListeningSocket]) -> None:
    """Refuse connections from now on, in every process that shares the sockets."""
    for listening in sockets:
        with socket.socket(fileno=os.dup(listening.descriptor)) as copy:
            # Closing would not do, for others hold it; this is for the socket, whoever holds it.
            copy.shutdown(socket.SHUT_RDWR)
