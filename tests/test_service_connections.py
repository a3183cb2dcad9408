"""Hundreds of connections that send next to nothing, to the real service with few descriptors."""

from __future__ import annotations

import contextlib
import itertools
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from conftest import ROOT, Store
from serving import Server, free_port, running

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

DESCRIPTORS = 1024
BOUND = 768
HALF_A_HEAD = b"GET /livez HTTP/1.1\r\nhost: a\r\nx-"
PING = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"
SLOW_BODY = (
    b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    b"content-length: 100\r\n\r\n{"
)
REQUEST = {"prompt": "a fox", "num_inference_steps": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module", autouse=True)
def _descriptors_for_clients() -> Iterator[None]:
    """The clients of this file are sockets of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = [
        *("sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$0" "$@"'),
        *(sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    log_file = tmp_path_factory.mktemp("few") / "log"
    with running(command, port, ROOT, store.environment, log_file) as server:
        yield server


@pytest.fixture
def clients() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as clients:
        yield clients


def connect(
    server: Server, clients: contextlib.ExitStack, count: int, sent: bytes
) -> list[socket.socket]:
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    made = []
    for _ in range(count):
        client = clients.enter_context(
            socket.create_connection((parts.hostname, parts.port), timeout=10)
        )
        client.sendall(sent)
        made.append(client)
    return made


def worker_of(server: Server) -> psutil.Process:
    family = psutil.Process(server.process.pid).children(recursive=True)
    return max(family, key=lambda member: int(member.memory_info().rss))


def seconds_of_a_ping(server: Server) -> float:
    started = time.monotonic()
    assert httpx.get(f"{server.url}/livez", timeout=10).status_code == 200
    return time.monotonic() - started


def test_a_crowd_that_holds_on_keeps_nobody_out(
    server: Server, clients: contextlib.ExitStack
) -> None:
    before = len(server.log)
    slow = connect(server, clients, 100, SLOW_BODY)
    crowd = itertools.cycle((HALF_A_HEAD, PING, b""))
    seconds = []
    for _ in range(9):  # far more than the bound
        connect(server, clients, 130, next(crowd))
        seconds.append(seconds_of_a_ping(server))
        assert httpx.post(f"{server.url}/generate", json=REQUEST, timeout=30).status_code == 200
    assert sorted(seconds)[len(seconds) // 2] < 1
    assert worker_of(server).num_fds() < DESCRIPTORS
    for client in slow:  # a request under way keeps its place (a body has a minute)
        client.sendall(b"x" * 99)
        assert client.recv(4096).split()[1] in (b"400", b"408")
    told = server.log[before:]
    assert f"{BOUND} are open (127.0.0.1)" in told
    assert told.count("kept them waiting") <= 3  # a line a minute
    assert "Traceback" not in told


def test_half_a_head_has_ten_seconds(server: Server, clients: contextlib.ExitStack) -> None:
    (client,) = connect(server, clients, 1, HALF_A_HEAD)
    started = time.monotonic()
    client.settimeout(15)
    assert client.recv(4096).startswith(b"HTTP/1.1 408")
    assert 9 < time.monotonic() - started < 13


def test_a_burst_does_not_take_the_last_descriptor(
    server: Server, clients: contextlib.ExitStack
) -> None:
    """More than there are descriptors for wait to be accepted, and all are accepted in a row."""
    worker = worker_of(server)
    worker.send_signal(signal.SIGSTOP)
    try:
        connect(server, clients, 1500, HALF_A_HEAD)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert seconds_of_a_ping(server) < 5
    assert httpx.post(f"{server.url}/generate", json=REQUEST, timeout=30).status_code == 200
    assert "out of system resource" not in server.log
    assert "Traceback" not in server.log
