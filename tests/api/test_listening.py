from __future__ import annotations

import logging
import socket

import pytest

from lpw_sdxl.api.listening import listening_sockets, warn_if_exposed


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
