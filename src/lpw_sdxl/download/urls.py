"""Which URLs may be asked for a file, and what of a URL may be shown; pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote_plus, urlsplit

from lpw_sdxl.errors import CheckpointError

_UNPRINTABLE = re.compile(r"[\s\x00-\x20\x7f]")
# Whole names only: a presigned URL's X-Amz-Security-Token or sig is not the user's key.
_KEY_PARAMETER = re.compile(
    r"secret|client_secret|password|passwd|bearer|jwt|auth|authorization"
    r"|((api|access|auth|private)_?)?(token|key)"
)


def check_url(url: str) -> SplitResult:
    """Check that a URL may be asked for a file, and return its parts without the fragment.

    Raises:
        CheckpointError: it can't be read, holds a password, or would travel unencrypted.
    """
    try:
        parts = urlsplit(url)
        parts = parts._replace(netloc=parts.netloc.lower(), fragment="")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or _UNPRINTABLE.search(url):
        raise CheckpointError(
            "The URL can't be read; https://HOST/PATH is right, with every space as %20."
        )
    if "@" in parts.netloc:
        raise CheckpointError(
            f"The URL of {host} has a user or password before the @; leave that out."
        )
    if parts.scheme.lower() != "https" and not (
        parts.scheme.lower() == "http" and is_loopback(host)
    ):
        raise CheckpointError(f"The URL of {host} begins with {parts.scheme}:; https is needed.")
    return parts


def find_key_parameter(parts: SplitResult) -> str | None:
    """Return the name of the first query parameter that looks like a user's key, or None."""
    for pair in re.split("[&;]", parts.query):
        name = unquote_plus(pair.partition("=")[0]).strip()
        if _KEY_PARAMETER.fullmatch(re.sub("[-. ]", "_", name.lower())):
            return name
    return None


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself, by its name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def without_query(url: str) -> str:
    """Return a URL's scheme, host, port and path: what may be stored, printed and logged."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def origin_of(url: str) -> tuple[str, str, int]:
    """Return a URL's scheme, host and port (RFC 6454 section 4)."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port
