"""The names under which this server may show jobs to a client that has no token.

The owner of any name can point it to this server (DNS rebinding): a page under that name is then of
the same origin, and a browser lets it read what it gets. Names that no stranger can own are trusted
as they are; others must be listed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from lpw_sdxl.api.asgi import Scope, header_values
from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import ENVIRONMENT_PREFIX

OWN_ENDINGS = (".local", ".internal", ".lan", ".home.arpa", ".svc")
_SETTING = f"{ENVIRONMENT_PREFIX}HOSTS"
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Hosts:
    """The names of this server.

    Attributes:
        listed: names beside those that no stranger can own, in lower case.
    """

    listed: Collection[str] = ()

    def trust(self, scope: Scope) -> bool:
        """Return whether a request came under a name that no stranger can own.

        A request without a Host is not a browser's.
        """
        hosts = header_values(scope, b"host")
        if not hosts:
            return True
        found = _HOST.fullmatch(hosts[0].decode("latin-1").lower())
        return len(hosts) == 1 and found is not None and self._is_own(found[1].rstrip("."))

    def _is_own(self, name: str) -> bool:
        with suppress(ValueError):
            ipaddress.ip_address(name.strip("[]"))
            return True
        return "." not in name or name.endswith(OWN_ENDINGS) or name in self.listed


def read_hosts(text: str) -> tuple[str, ...]:
    """Parse the names in the setting, with commas or blanks between them.

    Raises:
        SettingsError: one is no name; the message names it and shows a right one.
    """
    names = tuple(word for word in re.split(r"[,\s]+", text.lower()) if word)
    for name in names:
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{_SETTING}: {name[:100]} is no host's name; right is images.example.org, without"
                " scheme, port and path"
            )
    return names
