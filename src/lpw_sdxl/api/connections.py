"""The connections of a worker: how many there are, and how long each may wait for its client.

A descriptor is held by every connection, and a slot by every request under way. Neither may be held
by a client that sends half a head, half a body, or reads no answer: such connections are closed
after a time limit, and the one that has waited longest is closed earlier where another client needs
its place. It knows nothing of HTTP but the answer 408, and nothing of uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

from lpw_sdxl.api.dialect import NATIVE
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.sparse_warning import SparseWarning

logger = logging.getLogger(__name__)

HEAD_S = 10.0
UNREAD_S = 60.0
# Where places are needed: a body that is not complete, and an answer of which nothing is read, for
# so long. An ordinary client's body is here within a second.
SLOW_BODY_S = 1.0
SLOW_READING_S = 10.0
SWEEP_S = 1.0
_OVER_LIMIT = "lpw_sdxl.over_limit"  # keys of the scope
_PEER = "lpw_sdxl.peer"


def _late_answer() -> bytes:
    """Write the answer to a request that did not arrive in time: nothing of it may be readable."""
    response = NATIVE.response(ErrorAnswer.from_status(408))
    fields = [*response.raw_headers, (b"connection", b"close")]
    head = b"".join(b"%s: %s\r\n" % field for field in fields)
    return b"HTTP/1.1 408 Request Timeout\r\n" + head + b"\r\n" + bytes(response.body)


_LATE = _late_answer()


class ConnectionLimits(NamedTuple):
    """How many connections a process has at most, and how many of them with a request under way.

    The others are for probes, and for the answers that refuse a request.
    """

    connections: int
    requests: int


class Phase(Enum):
    """A state of a connection, by what it waits for."""

    HEAD = auto()  # its client: a request's head, or the rest of it
    BODY = auto()  # its client: the rest of a request's body
    ANSWER = auto()  # the service, or its client to read
    EXTRA = auto()  # a request over the limit: a probe's answer or a refusal
    CLOSED = auto()


@dataclass(eq=False)
class Connection:
    """A connection as the registry sees it.

    Attributes:
        transport: asyncio's.
        client: address for the log.
        phase: what it waits for.
        since: when that began, seconds of the registry's clock.
        has_sent: in phase HEAD, whether a part of the head has come.
        is_answered: in phase ANSWER, whether only its client is awaited.
        unsent: bytes of answers that its client has not taken, when they were last counted.
        moved_at: when `unsent` was last seen to shrink, seconds.
    """

    transport: asyncio.Transport
    client: str
    phase: Phase = Phase.HEAD
    since: float = 0.0
    has_sent: bool = False
    is_answered: bool = False
    unsent: int = 0
    moved_at: float = 0.0


class Connections:
    """A registry of open connections, which closes those that wait for their client too long.

    Args:
        limits: how many there may be.
        clock: returns the time in seconds.
    """

    def __init__(
        self, limits: ConnectionLimits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self._clock = clock
        # The keys are ordered by `since`.
        self._of: dict[Phase, dict[Connection, None]] = {phase: {} for phase in Phase}
        self._unread: list[Connection] = []  # for SLOW_READING_S, longest first, at the last sweep
        self._timer: asyncio.TimerHandle | None = None
        self._warning = SparseWarning(
            logger, "%d connections closed because their clients kept them waiting, the last %s"
        )

    @property
    def connections(self) -> int:
        """Return the number of open connections."""
        return sum(len(some) for phase, some in self._of.items() if phase is not Phase.CLOSED)

    @property
    def requests(self) -> int:
        """Return the number of requests under way, without those over the limit."""
        return len(self._of[Phase.BODY]) + len(self._of[Phase.ANSWER])

    def add(self, connection: Connection) -> None:
        """Add a new connection; another one is closed if there are too many then."""
        _bound_silence(connection.transport)
        connection.since = self._clock()
        self._of[Phase.HEAD][connection] = None
        if self.connections > self.limits.connections:
            oldest = next(iter(self._of[Phase.HEAD]))  # the new one itself if no other waits
            if oldest is connection:
                oldest = self._slowest_request() or oldest
            self._close(oldest, f"for another one: {self.limits.connections} are open")
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def remove(self, connection: Connection) -> None:
        """Remove a connection that is lost, or no longer HTTP."""
        self._of[connection.phase].pop(connection, None)

    def note_head(self, connection: Connection) -> None:
        """Record that bytes have come and the head is not complete: it has its time from the first.

        Later bytes give it no more time.
        """
        if connection.phase is Phase.HEAD and not connection.has_sent:
            self._enter(connection, Phase.HEAD)
            connection.has_sent = True

    def begin_request(
        self, connection: Connection, scope: MutableMapping[str, Any], *, has_body: bool
    ) -> None:
        """Record that a head is complete; note in its scope the peer, and if it is one too many.

        Args:
            connection: the request's.
            scope: the request's.
            has_body: whether its body is complete.
        """
        scope[_PEER] = connection.client
        if connection.phase in (Phase.BODY, Phase.ANSWER):
            self._enter(connection, Phase.HEAD)  # one that was sent behind another
        if self.requests >= self.limits.requests:
            slowest = self._slowest_request()
            if slowest is None:
                scope[_OVER_LIMIT] = True
                self._enter(connection, Phase.EXTRA)
                return
            self._close(slowest, f"for another one: {self.limits.requests} requests are under way")
        self._enter(connection, Phase.ANSWER if has_body else Phase.BODY)

    def note_body(self, connection: Connection) -> None:
        """Record that a request's body is complete."""
        if connection.phase is Phase.BODY:
            self._enter(connection, Phase.ANSWER)

    def end_request(self, connection: Connection) -> None:
        """Record that an answer is complete; the request is under way until its client has it."""
        if connection.phase is Phase.CLOSED:
            return
        if not connection.transport.get_write_buffer_size():
            self._enter(connection, Phase.HEAD)
            return
        if connection.phase is not Phase.EXTRA:
            self._enter(connection, Phase.ANSWER)
        connection.is_answered = True

    def note_reading(self, connection: Connection) -> None:
        """Record that a client has taken a part of its answer."""
        connection.moved_at = self._clock()

    def _enter(self, connection: Connection, phase: Phase) -> None:
        self._of[connection.phase].pop(connection, None)
        connection.phase = phase
        connection.since = self._clock()
        connection.has_sent = connection.is_answered = False
        self._of[phase][connection] = None

    def _slowest_request(self) -> Connection | None:
        """Return the request that has kept its place for too long, if there is one."""
        bodies = self._of[Phase.BODY]
        slowest = next(iter(bodies), None)
        if slowest is not None and self._clock() - slowest.since >= SLOW_BODY_S:
            return slowest
        while self._unread:
            slowest = self._unread.pop(0)
            is_open = slowest in self._of[Phase.ANSWER]
            if is_open and slowest.transport.get_write_buffer_size() >= slowest.unsent:
                return slowest
        return None

    def _close(self, connection: Connection, reason: str) -> None:
        """Close a connection at once, with a 408 if a part of a request has come."""
        is_request = connection.phase is Phase.BODY or connection.has_sent
        if is_request and not connection.transport.is_closing():
            connection.transport.write(_LATE)
        # Not `close`, which waits for the client to read what was sent.
        connection.transport.abort()
        self._enter(connection, Phase.CLOSED)
        self._warning.add(f"{reason} ({connection.client})")

    def _sweep(self) -> None:
        """Close every connection whose time has passed."""
        now = self._clock()
        heads = self._of[Phase.HEAD]
        for connection in [*_older(heads, now - HEAD_S)]:
            if connection.has_sent:
                self._close(connection, f"without a complete head in {HEAD_S:g} s")
            else:
                connection.transport.abort()  # a browser opens such ones in advance: not logged
                self._enter(connection, Phase.CLOSED)
        self._unread = []
        for connection in [*self._of[Phase.ANSWER], *self._of[Phase.EXTRA]]:
            self._sweep_unsent(connection, now)
        self._unread.sort(key=lambda one: one.moved_at)
        self._timer = None
        if any(self._of.values()):
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep_unsent(self, connection: Connection, now: float) -> None:
        unsent = connection.transport.get_write_buffer_size()
        if unsent == 0 or connection.unsent == 0 or unsent < connection.unsent:
            connection.moved_at = now
        connection.unsent = unsent
        if unsent == 0 and connection.is_answered:
            self._enter(connection, Phase.HEAD)
            return
        unread_s = now - connection.moved_at
        if unread_s >= UNREAD_S:
            self._close(connection, f"with an answer of which nothing was read for {UNREAD_S:g} s")
        elif unread_s >= SLOW_READING_S:
            self._unread.append(connection)


def is_over_limit(scope: MutableMapping[str, Any]) -> bool:
    """Return whether a request came while as many were under way as there may be."""
    return _OVER_LIMIT in scope


def peer(scope: MutableMapping[str, Any]) -> str:
    """Return the address at the other end of a request's connection.

    uvicorn replaces the scope's own one by the header `x-forwarded-for` of any program on this
    machine, which may write into it whatever it likes.
    """
    client = scope.get("client")
    return str(scope.get(_PEER) or (client[0] if client else "nowhere"))


def _bound_silence(transport: asyncio.Transport) -> None:
    """Make the system close a connection whose client acknowledges nothing for 2 * UNREAD_S.

    Twice, so that an answer that is not read is first seen, closed and logged by the sweep.
    A client that vanished without a word, as a laptop that sleeps, would otherwise be sent the
    events of a stream for a quarter of an hour.
    """
    connected = transport.get_extra_info("socket")
    if connected is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):  # it is no TCP, or a sandbox's own network
            milliseconds = round(2 * UNREAD_S * 1000)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _older(connections: Iterable[Connection], moment: float) -> Iterator[Connection]:
    """Yield the connections of before a moment; the oldest comes first."""
    for connection in connections:
        if connection.since > moment:
            return
        yield connection
