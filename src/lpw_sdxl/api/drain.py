"""Orderly end of a worker on SIGTERM: first not ready, then closed to connections, then ended.

uvicorn stops accepting at once, but BentoML's supervisor still holds the listening socket: a client
that connects while the last requests are finished waits for them, and is reset when the supervisor
ends. Here the socket itself stops listening, so that a connection is refused and can safely be made
elsewhere.
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
    """A handler of SIGTERM that delays the previous one, which is uvicorn's.

    Args:
        delay_s: how long requests are still accepted after `is_leaving` is set, seconds, so that a
            load balancer that polls /readyz notices.
        is_only_worker: whether no other worker shares the listening socket, so that it may be
            closed.
    """

    def __init__(self, delay_s: float, *, is_only_worker: bool) -> None:
        self.is_leaving = False
        self._delay_s = delay_s
        self._is_only_worker = is_only_worker
        self._previous: object = None

    def install(self) -> None:
        """Install the handler; call in the running event loop, after uvicorn installed its own."""
        if threading.current_thread() is not threading.main_thread():
            return  # a test's application has no signals
        loop = asyncio.get_running_loop()
        self._previous = signal.signal(
            signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(self._begin, loop)
        )

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.is_leaving:
            return  # a second SIGTERM
        self.is_leaving = True
        logger.info(
            "SIGTERM: not ready any more, and closed to new requests in %g s", self._delay_s
        )
        loop.call_later(self._delay_s, self._close, loop)

    def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        # In the event loop's turn after the next one: the next turn accepts the connections that
        # wait already. A client that has sent no request by then is reset all the same; only the
        # delay avoids that. The sockets are found beforehand, because the search takes
        # milliseconds, in which more clients would connect.
        if self._is_only_worker:
            loop.call_soon(loop.call_soon, partial(stop_listening, listening_sockets()))
        loop.call_soon(loop.call_soon, self._hand_over)

    def _hand_over(self) -> None:
        if callable(self._previous):
            self._previous(signal.SIGTERM, None)


def stop_listening(sockets: Iterable[ListeningSocket]) -> None:
    """Make sockets refuse connections from now on, in every process that shares them."""
    for listening in sockets:
        with socket.socket(fileno=os.dup(listening.descriptor)) as copy:
            # Closing has no effect while other processes hold the socket; a shutdown has.
            copy.shutdown(socket.SHUT_RDWR)
