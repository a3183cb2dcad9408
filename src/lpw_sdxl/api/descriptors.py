"""The file descriptors of a worker, and how many of them its connections may take."""

from __future__ import annotations

import contextlib

from lpw_sdxl.api.connections import ConnectionLimits

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MAX_CONNECTIONS = 10_000  # about 20 kB of memory each
ACCEPTS_PER_TURN = 32  # of the event loop; asyncio would accept as many as its backlog, 2,048
# A connection that is accepted counts three turns later, and a closed one ends one turn later.
_UNCOUNTED = 4 * ACCEPTS_PER_TURN
_FILES = 128  # the model's and the addons' files, metrics, log, devices: 16 were seen on a CPU
_RESERVE = _UNCOUNTED + _FILES
_UNKNOWN_LIMIT = 1024  # where the system has no such limit or does not state it
MIN_CONNECTIONS = 32


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of descriptors as far as is of use; return the limit.

    Not to a hard limit of a billion, as containers have: some programs close every number up to it.
    """
    if resource is None:
        return _UNKNOWN_LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    useful = MAX_CONNECTIONS + _RESERVE
    if soft == resource.RLIM_INFINITY or soft >= useful:
        return useful
    wanted = useful if hard == resource.RLIM_INFINITY else min(hard, useful)
    with contextlib.suppress(OSError, ValueError):  # a system's own lower bound
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connection_limits(descriptors: int) -> ConnectionLimits:
    """Compute how many connections and requests a process may have at once.

    Args:
        descriptors: its limit of file descriptors.
    """
    connections = max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, descriptors - _RESERVE))
    for_probes = min(256, max(8, connections // 8))
    return ConnectionLimits(connections, connections - for_probes)
