"""Where this process listens: BentoML's worker is given a socket, and not told its address."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import stat

logger = logging.getLogger(__name__)

_OPEN_FILES = "/proc/self/fd"  # Linux


def warn_if_exposed() -> None:
    """Say loudly that whoever reaches this server may use it, if more than this machine does."""
    exposed = [address for address in listening_addresses() if not _is_loopback(address)]
    if exposed:
        logger.warning(
            "LISTENING ON %s WITHOUT A TOKEN: whoever reaches this port may use this server."
            " Set LPW_SDXL_TOKENS or LPW_SDXL_TOKENS_FILE, or serve with --host 127.0.0.1.",
            ", ".join(sorted(set(exposed))),
        )


def listening_addresses() -> list[str]:
    """Give the IP addresses that this process has listening sockets on."""
    addresses = []
    with contextlib.suppress(OSError):
        for name in os.listdir(_OPEN_FILES):
            with contextlib.suppress(OSError):
                addresses.extend(_address(int(name)))
    return addresses


def _address(descriptor: int) -> list[str]:
    """Give a descriptor's address if it is a socket that listens for TCP."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return []
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        if copy.family not in (socket.AF_INET, socket.AF_INET6):
            return []
        is_listening = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return [copy.getsockname()[0]] if is_listening else []


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
