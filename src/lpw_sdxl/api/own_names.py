"""Names of this server that no stranger can own.

The owner of any other name can point it to this server (DNS rebinding): a page under that name is
then of the same origin.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import ENVIRONMENT_PREFIX

OWN_ENDINGS = (".local", ".internal", ".lan", ".home.arpa", ".svc")
_SETTING = f"{ENVIRONMENT_PREFIX}HOSTS"
_PLAIN = re.compile(r"[a-z0-9_-]+")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True)
class OwnNames:
    """The names that are this server's own: those that no stranger can own, and listed ones.

    Attributes:
        listed: by the server's owner, in lower case.
    """

    listed: Collection[str] = ()

    def __contains__(self, name: str) -> bool:
        """Return whether a name is this server's own.

        Args:
            name: in lower case, without a port; an address of IPv6 may have brackets.
        """
        name = name.rstrip(".")
        return name in self.listed or _is_ownerless(name)


def read_hosts(text: str) -> OwnNames:
    """Parse the names in the setting, with commas or blanks between them.

    Raises:
        SettingsError: one is no name; the message shows it and a right one.
    """
    names = [word for word in re.split(r"[,\s]+", text.lower()) if word]
    for name in names:
        if not _NAME.fullmatch(name):
            shown = name[:100] if "@" not in name else "a name with a user in it"
            raise SettingsError(
                f"{_SETTING}: {shown} is no name of a host; right are images.example.org and"
                " gpu.example.org, without https://, port and path"
            )
    return OwnNames(frozenset(names))


def _is_ownerless(name: str) -> bool:
    """Return whether a host is an address, or a name that no stranger can own."""
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
