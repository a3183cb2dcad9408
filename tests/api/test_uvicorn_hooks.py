"""Connections to a real uvicorn with the real guard, over real sockets; the limits are small."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
import uvicorn.config

from lpw_sdxl.api import connections as limits_module
from lpw_sdxl.api.connections import ConnectionLimits, Connections
from lpw_sdxl.api.descriptors import ACCEPTS_PER_TURN
from lpw_sdxl.api.endpoint_table import EndpointTable
from lpw_sdxl.api.endpoints import Answer, Body, Endpoint, find_call
from lpw_sdxl.api.guard import RequestGuard
from lpw_sdxl.api.uvicorn_hooks import WorkerLoop, bound_connections

LIMITS = ConnectionLimits(connections=8, requests=6)
HEAD_S, UNREAD_S, SLOW_BODY_S, SLOW_READING_S = (0.5, 0.8, 0.3, 0.3)
LARGE = 32 * 1024 * 1024  # more than two systems keep between them
ROWS = (
    Endpoint(("GET", "HEAD"), "/livez", "", Answer(""), is_quiet=True),
    Endpoint(("GET", "HEAD"), "/large", "", Answer("")),
    Endpoint(("GET",), "/work", "", Answer("")),
    Endpoint(("POST",), "/generate", "", Answer(""), body=Body(lambda payload: payload, 10**8)),
)
LIVE = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"
POST = b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
ASK = POST + b"content-length: 2\r\n\r\n{}"
ASK_WORK = b"GET /work HTTP/1.1\r\nhost: a\r\n\r\n"
SLOW = POST + b"content-length: 100\r\n\r\n{"


class Application:
    """An application whose work lasts until the test says so."""

    def __init__(self) -> None:
        self.is_done = threading.Event()
        self.working = 0
        self.owners: list[str] = []

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        content = b"x" * LARGE if scope["path"] == "/large" else b"ok"
        if (call := find_call(scope)) is not None:
            self.owners.append(call.owner)
        if scope["path"] == "/work":
            self.working += 1
            while not self.is_done.is_set():
                await asyncio.sleep(0.01)
        length = (b"content-length", str(len(content)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": content})


class Serving:
    """uvicorn in a thread, with clients that are sockets."""

    def __init__(self, registry: Connections, application: Application, port: int) -> None:
        self.registry = registry
        self.application = application
        self._port = port
        self._clients = contextlib.ExitStack()

    def connect(self, *sent: bytes, receive_buffer: int | None = None) -> socket.socket:
        client = self._clients.enter_context(socket.socket())
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(10)
        client.connect(("127.0.0.1", self._port))
        for one in sent:
            client.sendall(one)
        return client

    def close(self) -> None:
        self.application.is_done.set()
        self._clients.close()


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    for name in ("HEAD_S", "UNREAD_S", "SLOW_BODY_S", "SLOW_READING_S"):
        monkeypatch.setattr(limits_module, name, globals()[name])
    monkeypatch.setattr(limits_module, "SWEEP_S", 0.05)
    for table in (uvicorn.config.HTTP_PROTOCOLS, uvicorn.config.LOOP_FACTORIES):
        monkeypatch.setitem(table, "auto", table["auto"])  # type: ignore[index]
    registry = bound_connections(LIMITS)
    application = Application()
    guard = RequestGuard(application, EndpointTable(ROWS))
    config = uvicorn.Config(guard, log_config=None, lifespan="off", timeout_keep_alive=5)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        running = Serving(registry, application, port)
        try:
            wait_for(lambda: server.started)
            yield running
        finally:
            running.close()
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()
    assert registry.connections == 0
    assert registry.requests == 0


def wait_for(is_true: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def answer(client: socket.socket) -> bytes:
    """Read one answer, up to its end or to that of the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            head, end, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if end and (length is None or len(body) >= int(length[1])):
                break
            more = client.recv(65536)
            if not more:
                break
            received += more
    return received


def status(client: socket.socket) -> int:
    head = answer(client)
    return int(head.split()[1]) if head else 0


def is_closed(client: socket.socket) -> bool:
    """Whether a connection is closed by the server, with or without a last answer."""
    client.setblocking(False)
    try:
        while client.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        client.settimeout(10)
    return True


HALVES = {
    "a word": b"GET",
    "a line": b"GET /livez HTTP/1.1\r\n",
    "all but the end": LIVE[:-2],
}


@pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES.keys())
def test_half_a_head_has_an_answer_after_its_time(
    serving: Serving, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    clients = [serving.connect(sent) for _ in range(3)]
    assert {status(client) for client in clients} == {408}
    assert 0.9 * HEAD_S < time.monotonic() - started < HEAD_S + 1
    wait_for(lambda: all(map(is_closed, clients)))
    (line,) = [record for record in caplog.records if "kept them waiting" in record.message]
    assert re.search(r"without a complete head in 0.5 s \(127.0.0.1\)", line.message)


def test_a_head_that_trickles_has_no_more_time(serving: Serving) -> None:
    client = serving.connect()
    time.sleep(0.6 * HEAD_S)
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        for byte in LIVE[:-1] * 2:
            client.sendall(bytes([byte]))
            time.sleep(0.02)
            if is_closed(client):
                break
    assert 0.9 * HEAD_S < time.monotonic() - started < HEAD_S + 0.5  # from the first byte


def test_a_connection_without_a_byte_ends_without_a_line(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    client = serving.connect()
    assert answer(client) == b""
    assert not [record for record in caplog.records if "waiting" in record.message]


def test_a_kept_connection_has_its_time_for_each_head(serving: Serving) -> None:
    client = serving.connect()
    for _ in range(4):
        client.sendall(LIVE[:10])
        time.sleep(0.6 * HEAD_S)
        client.sendall(LIVE[10:])
        assert status(client) == 200
    client.sendall(LIVE[:10])
    assert status(client) == 408


def test_requests_behind_one_another_are_all_answered(serving: Serving) -> None:
    client = serving.connect(ASK + LIVE + ASK, LIVE)
    received = b""
    while received.count(b"HTTP/1.1 200") < 4:
        received += client.recv(65536)
    wait_for(lambda: serving.registry.requests == 0)


def test_the_longest_waiting_connection_makes_room(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    kept = serving.connect(LIVE)
    assert status(kept) == 200
    waiting = [serving.connect(LIVE[:10]) for _ in range(LIMITS.connections - 1)]
    wait_for(lambda: serving.registry.connections == LIMITS.connections)
    assert status(serving.connect(ASK)) == 200
    wait_for(lambda: is_closed(kept))  # it has waited since its answer
    assert status(serving.connect(LIVE)) == 200
    assert status(waiting[0]) == 408
    assert not any(map(is_closed, waiting[1:]))
    assert sum("8 are open" in record.message for record in caplog.records) == 1


def test_any_number_of_half_heads_keeps_nobody_out(serving: Serving) -> None:
    for _ in range(40):
        serving.connect(LIVE[:10])
        assert serving.registry.connections <= LIMITS.connections
    assert status(serving.connect(ASK)) == 200


def test_requests_over_the_limit_are_refused_and_probes_are_answered(serving: Serving) -> None:
    work = b"GET /work HTTP/1.1\r\nhost: a\r\n\r\n"
    workers = [serving.connect(work) for _ in range(LIMITS.requests)]
    wait_for(lambda: serving.application.working == LIMITS.requests)
    refused = serving.connect(ASK)
    told = answer(refused)
    assert told.startswith(b"HTTP/1.1 429")
    assert b"retry-after: 10" in told
    assert b"connection: close" in told
    assert b'"overloaded"' in told
    assert status(serving.connect(LIVE)) == 200
    time.sleep(HEAD_S)  # work may take its time
    assert status(serving.connect(ASK)) == 429
    serving.application.is_done.set()
    assert {status(worker) for worker in workers} == {200}
    assert status(serving.connect(ASK)) == 200


def test_slow_bodies_make_room_for_other_requests(serving: Serving) -> None:
    slow = [serving.connect(SLOW) for _ in range(LIMITS.requests)]
    wait_for(lambda: serving.registry.requests == LIMITS.requests)
    assert status(serving.connect(ASK)) == 429  # they may be complete in a moment
    assert status(serving.connect(LIVE)) == 200
    time.sleep(SLOW_BODY_S)
    assert status(serving.connect(ASK)) == 200
    assert status(slow[0]) == 408
    assert not any(map(is_closed, slow[1:]))
    slow[1].sendall(b"x" * 99)
    assert status(slow[1]) == 200


ASK_LARGE = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n"


def test_an_answer_that_is_not_read_is_given_up(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    client = serving.connect(ASK_LARGE, receive_buffer=4096)
    wait_for(lambda: serving.registry.requests == 1)
    time.sleep(0.5 * UNREAD_S)
    assert serving.registry.requests == 1  # it is under way until it is read
    wait_for(lambda: serving.registry.connections == 0)
    assert "of which nothing was read" in caplog.text
    client.close()


def test_answers_that_are_not_read_make_room_for_other_requests(serving: Serving) -> None:
    unread = [serving.connect(ASK_LARGE, receive_buffer=4096) for _ in range(LIMITS.requests)]
    wait_for(lambda: serving.registry.requests == LIMITS.requests)
    assert status(serving.connect(ASK)) == 429
    time.sleep(SLOW_READING_S + 0.2)
    assert status(serving.connect(ASK)) == 200
    del unread


def test_a_slow_reader_has_all_of_its_answer(serving: Serving) -> None:
    client = serving.connect(ASK_LARGE, receive_buffer=65536)
    received = 0
    while received < LARGE:
        received += len(client.recv(256 * 1024))
        if received % 7 == 0:
            time.sleep(0.02)
    wait_for(lambda: serving.registry.requests == 0)


def test_a_client_that_leaves_is_forgotten(serving: Serving) -> None:
    for sent in (b"", LIVE[:10], SLOW, ASK, ASK_LARGE):
        serving.connect(sent).close()
    wait_for(lambda: serving.registry.connections == 0)


def test_a_websocket_is_not_counted(serving: Serving) -> None:
    client = serving.connect(
        LIVE[:-2]
        + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        + b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert status(client) == 403
    wait_for(lambda: serving.registry.connections == 0)


def test_few_connections_are_accepted_in_one_turn() -> None:
    """So that a burst takes no more descriptors than are kept free for it."""
    loop = WorkerLoop()
    made: list[asyncio.BaseTransport] = []

    class Counting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def turns() -> list[int]:
        counts = [0]
        while len(made) < 100:
            await asyncio.sleep(0)
            counts.append(len(made))
        return [later - earlier for earlier, later in itertools.pairwise(counts)]

    with contextlib.ExitStack() as stack:
        stack.callback(loop.close)
        server = loop.run_until_complete(loop.create_server(Counting, "127.0.0.1", 0, backlog=2048))
        address = server.sockets[0].getsockname()
        for _ in range(100):  # all of them fit into the queue
            stack.enter_context(socket.create_connection(address, timeout=2))
        counts = loop.run_until_complete(asyncio.wait_for(turns(), 5))
        assert max(counts) <= ACCEPTS_PER_TURN
        for transport in made:
            transport.close()
        server.close()
        loop.run_until_complete(asyncio.sleep(0.01))


def test_a_header_makes_nobody_another_owner(serving: Serving) -> None:
    """uvicorn trusts x-forwarded-for of every program on this machine."""
    forged = b"GET /work HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 10.1.2.3\r\n\r\n"
    serving.application.is_done.set()
    client = serving.connect(forged, forged)  # the second one waits behind the first
    assert answer(client).startswith(b"HTTP/1.1 200")
    wait_for(lambda: len(serving.application.owners) == 2)
    assert serving.application.owners == ["127.0.0.1"] * 2


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux")
def test_the_system_closes_what_acknowledges_nothing(serving: Serving) -> None:
    with serving.connect(ASK_WORK) as client:
        while serving.application.working == 0:
            time.sleep(0.01)
        (connection,) = serving.registry._of[limits_module.Phase.ANSWER]
        connected = connection.transport.get_extra_info("socket")
        option = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == round(2 * UNREAD_S * 1000)  # the sweep comes first
        serving.application.is_done.set()
        assert client.recv(1000)
