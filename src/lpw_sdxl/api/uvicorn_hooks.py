"""Bounded connections in uvicorn: its protocol and its event loop, with two hooks of ours.

uvicorn 0.54 looks both up by name when its server is made, which is after the application.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from lpw_sdxl.api.connections import HEAD_S, Connection, ConnectionLimits, Connections
from lpw_sdxl.api.descriptors import ACCEPTS_PER_TURN
from lpw_sdxl.api.loop_share import LoopShare

_Protocol: Any = AutoHTTPProtocol  # one of two, by what is installed


def bound_connections(limits: ConnectionLimits) -> Connections:
    """Make every server that uvicorn makes from now on register and bound its connections.

    Returns:
        The registry of them all.
    """
    connections = Connections(limits)

    def make_protocol(**arguments: Any) -> asyncio.Protocol:
        return BoundedProtocol(connections, **arguments)

    # Both tables are looked up with `import_from_string`, which returns what is no string.
    protocols: dict[str, Any] = uvicorn.config.HTTP_PROTOCOLS
    protocols["auto"] = make_protocol
    loops: dict[str, Any] = uvicorn.config.LOOP_FACTORIES
    loops["auto"] = _loop_factory
    return connections


class BoundedProtocol(_Protocol):  # type: ignore[misc]
    """uvicorn's protocol of one connection, which reports each step to a registry.

    Args:
        connections: the registry.
        arguments: uvicorn's.
    """

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._connections = connections
        self._connection: Connection | None = None
        self._noted: Any = None  # the newest request that was reported

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Register the connection."""
        super().connection_made(transport)
        host = self.client[0] if self.client else "nowhere"
        self._connection = Connection(transport, host)
        self._connections.add(self._connection)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Process bytes of the client, and report how far its request is."""
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            self._forget()  # a WebSocket, which the guard closes at once
        self._report()

    def on_response_complete(self) -> None:
        """Finish an answer."""
        if self._connection is not None:
            self._connections.end_request(self._connection)
        super().on_response_complete()  # it may begin a request that was sent behind this one
        if not self.cycle.response_complete:
            self._report()

    def resume_writing(self) -> None:
        """Continue to write."""
        super().resume_writing()
        if self._connection is not None:
            self._connections.note_reading(self._connection)

    def _report(self) -> None:
        connection, cycle = self._connection, self.cycle
        if connection is None:
            return
        if cycle is None or cycle.response_complete:
            self._connections.note_head(connection)
        elif cycle is not self._noted:
            self._noted = cycle
            self._connections.begin_request(connection, cycle.scope, has_body=not cycle.more_body)
        elif not cycle.more_body:
            self._connections.note_body(connection)

    def _forget(self) -> None:
        if self._connection is not None:
            self._connections.remove(self._connection)
            self._connection = None


class WorkerLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, whose servers accept few connections in one turn.

    asyncio accepts up to the length of the queue, 2,048, before any of them is registered: enough
    to take every descriptor, after which it accepts nothing for a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.share = LoopShare()

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self.share.count_turn()

    async def create_server(
        self, *arguments: Any, backlog: int = 100, **options: Any
    ) -> asyncio.Server:
        """Create a server whose queue of new connections is as long as it is asked to be."""
        if options.get("ssl") is not None:
            # The registry sees a connection only after its handshake.
            options.setdefault("ssl_handshake_timeout", HEAD_S)
        server = await super().create_server(*arguments, backlog=ACCEPTS_PER_TURN, **options)
        for one in server.sockets:
            with socket.socket(fileno=os.dup(one.fileno())) as copy:
                copy.listen(backlog)
        return server


def _loop_factory(use_subprocess: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop; uvicorn passes whether it has other processes."""
    del use_subprocess  # which matters on Windows only
    return WorkerLoop
