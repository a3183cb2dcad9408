from __future__ import annotations

import logging
import socket
import sys

import pytest

from lpw_sdxl.api.listening import (
    ignore_new_clients,
    listening_sockets,
    stop_listening,
    warn_if_exposed,
)


def addresses() -> list[str]:
    return [one.address for one in listening_sockets()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    warn_if_exposed()
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_listener_on_all_addresses_is_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert "0.0.0.0" in addresses()
        (warning,) = warnings(caplog)
        assert server.fileno() >= 0
    assert "0.0.0.0 WITHOUT A TOKEN" in warning
    assert "LPW_SDXL_TOKENS" in warning
    assert "0.0.0.0" not in addresses()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_listener_on_loopback_is_not(caplog: pytest.LogCaptureFixture, address: str) -> None:
    with socket.create_server((address, 0)):
        assert address in addresses()
        assert warnings(caplog) == []


def test_a_connection_is_no_listener(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as idle:
        datagrams.bind(("0.0.0.0", 0))
        idle.bind(("0.0.0.0", 0))
        assert warnings(caplog) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_a_socket_about_to_close_takes_who_waits_and_ignores_who_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        mine = [one for one in listening_sockets() if one.descriptor == server.fileno()]
        with socket.create_connection(server.getsockname(), 10) as waiting:
            ignore_new_clients(mine)
            with pytest.raises(TimeoutError):
                socket.create_connection(server.getsockname(), 0.3)
            accepted, _ = server.accept()
            with accepted:
                waiting.sendall(b"a request")
                accepted.settimeout(10)
                assert accepted.recv(9) == b"a request"
                stop_listening(mine)
                accepted.sendall(b"its answer")
                waiting.settimeout(10)
                assert waiting.recv(10) == b"its answer"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.getsockname(), 10)
        server.listen()  # as a worker does that follows
        socket.create_connection(server.getsockname(), 10).close()
