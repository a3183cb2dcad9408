"""Orderly end of a worker on SIGTERM: first not ready, then closed to connections, then ended.

uvicorn stops accepting at once, but BentoML's supervisor still holds the listening socket: a client
that connects while the last requests are finished waits for them, and is reset when the supervisor
ends. Here the socket itself stops listening, so that a connection is refused and can safely be made
elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable

from lpw_sdxl.api.listening import ignore_new_clients, listening_sockets, stop_listening

logger = logging.getLogger(__name__)

# From accepting no more connections to refusing them, and from there to closing those without a
# request: longer than a handshake and a request's way over a network.
SETTLING_S = 0.3


class Drain:
    """A handler of SIGTERM that delays the previous one, which is uvicorn's.

    Args:
        leave: called on SIGTERM; returns how long requests are still accepted, seconds, so that a
            load balancer that polls /readyz notices.
        is_only_worker: whether no other worker shares the listening socket, so that it may be
            closed.
    """

    def __init__(self, leave: Callable[[], float], *, is_only_worker: bool) -> None:
        self._is_leaving = False
        self._leave = leave
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
        if self._is_leaving:
            return  # a second SIGTERM
        self._is_leaving = True
        delay_s = self._leave()
        logger.info("SIGTERM: not ready any more, and closed to new requests in %g s", delay_s)
        loop.call_later(delay_s, self._close, loop)

    def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        # A client that is connected already must get its answer. So new ones are first ignored,
        # until those that wait are accepted; then they are refused; and only after another pause,
        # in which the accepted ones send their requests, uvicorn closes what has none.
        if self._is_only_worker:
            sockets = listening_sockets()
            ignore_new_clients(sockets)
            loop.call_later(SETTLING_S, stop_listening, sockets)
        loop.call_later(2 * SETTLING_S, self._hand_over)

    def _hand_over(self) -> None:
        if callable(self._previous):
            self._previous(signal.SIGTERM, None)
