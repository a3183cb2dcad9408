"""The addresses that this process listens on: BentoML passes a worker a socket, no address."""

from __future__ import annotations

import ipaddress
import logging
from typing import NamedTuple

import psutil

logger = logging.getLogger(__name__)


class ListeningSocket(NamedTuple):
    """A socket of this process that accepts connections."""

    descriptor: int
    address: str


def warn_if_exposed() -> None:
    """Log a warning if this process listens on an address that other machines may reach."""
    addresses = [one.address for one in listening_sockets()]
    exposed = [address for address in addresses if not _is_loopback(address)]
    if exposed:
        logger.warning(
            "LISTENING ON %s WITHOUT A TOKEN: every client that reaches this port is served."
            " Set LPW_SDXL_TOKENS or LPW_SDXL_TOKENS_FILE, or serve with --host 127.0.0.1.",
            ", ".join(sorted(set(exposed))),
        )


def listening_sockets() -> list[ListeningSocket]:
    """List this process's sockets that listen for TCP."""
    connections = psutil.Process().net_connections("inet")
    return [
        ListeningSocket(one.fd, one.laddr.ip)
        for one in connections
        if one.status == psutil.CONN_LISTEN
    ]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
