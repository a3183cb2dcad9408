"""The addresses that this process listens on: BentoML passes a worker a socket, no address."""

from __future__ import annotations

import ctypes
import ipaddress
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import psutil

logger = logging.getLogger(__name__)

# asm-generic/socket.h; Python's socket module does not name them.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
# A classic BPF program, as (code, jump if true, jump if false, operand): drop a segment whose SYN
# flag is set, pass every other one. A filter of a TCP socket sees segments from their TCP header.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x45, 0, 1, 0x02),  # is SYN set?
    (0x06, 0, 0, 0),  # yes: pass no byte of it
    (0x06, 0, 0, 0xFFFFFFFF),  # no: pass all
)


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


def ignore_new_clients(sockets: Iterable[ListeningSocket]) -> None:
    """Make sockets ignore new connections, while those that began are completed and accepted.

    The client's system repeats its SYN after a second. Where the system has no such filters (it is
    Linux's), nothing changes.
    """
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN)
    buffer = ctypes.create_string_buffer(program)
    option = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(buffer))
    for listening in sockets:
        with socket.socket(fileno=os.dup(listening.descriptor)) as copy:
            try:
                copy.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
            except OSError:  # a sandbox's own network
                logger.debug("no filter for %s", listening.address, exc_info=True)


def stop_listening(sockets: Iterable[ListeningSocket]) -> None:
    """Make sockets refuse connections from now on, in every process that shares them.

    A connection that was not accepted yet is reset.
    """
    for listening in sockets:
        with socket.socket(fileno=os.dup(listening.descriptor)) as copy:
            # Closing has no effect while other processes hold the socket; a shutdown has.
            copy.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):  # there is none, or no such thing
                # The next worker of a supervisor that goes on listens on this socket again.
                copy.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
