"""The names under which this server shows jobs to a client that has no token.

The owner of any name can point it to this server (DNS rebinding): a page under that name is then of
the same origin, and a browser lets it read what it gets. Names that no stranger can own are trusted
as they are, and so are those that the owner lists, and those of the origins that are opened.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from lpw_sdxl.api.asgi import Scope, header_values
from lpw_sdxl.api.origins import ANY_ORIGIN, Origins

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")


def is_own_host(scope: Scope, origins: Origins) -> bool:
    """Return whether a request came under a name that is this server's own.

    A request without a Host is no browser's.

    Args:
        scope: the request's.
        origins: those that are opened, and the server's own names.
    """
    hosts = header_values(scope, b"host")
    if not hosts or ANY_ORIGIN in origins.opened:
        return True
    found = _HOST.fullmatch(hosts[0].decode("latin-1").lower())
    if len(hosts) > 1 or found is None:
        return False
    name = found[1].rstrip(".")
    opened = {urlsplit(origin).hostname for origin in origins.opened}
    return name in origins.own_names or name in opened
