"""Names of this server that no stranger can own.

The owner of any other name can point it to this server (DNS rebinding): a page under that name is
then of the same origin.
"""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress

OWN_ENDINGS = (".local", ".internal", ".lan", ".home.arpa", ".svc")
_PLAIN = re.compile(r"[a-z0-9_-]+")


def is_own_name(name: str) -> bool:
    """Return whether a host is an address, or a name that no stranger can own.

    Args:
        name: in lower case, without a port; an address of IPv6 may have brackets.
    """
    name = name.rstrip(".")
    if _PLAIN.fullmatch(name) or name.endswith(OWN_ENDINGS):
        return True
    is_bracketed = name.startswith("[") and name.endswith("]")
    with suppress(ValueError):
        if is_bracketed:
            ipaddress.IPv6Address(name[1:-1])
        else:
            ipaddress.ip_address(name)
        return True
    return False
