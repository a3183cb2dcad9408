"""The meaning of httpx's errors, in one sentence each; without an address, which may hold a key."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx

from lpw_sdxl.download.answers import TransientError
from lpw_sdxl.errors import CheckpointError

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 60.0

Result = TypeVar("Result")


def with_named_failures(host: str, call: Callable[[], Result]) -> Result:
    """Call httpx, and raise its errors as ours, in one sentence each.

    Raises:
        TransientError: the network failed, or the server is silent.
        CheckpointError: the server can't or must not be asked.
    """
    try:
        return call()
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ValueError, OSError) as error:
        failure = _name_failure(error, host)
    raise failure  # not within `except`: httpx's errors carry URL and key, and ours would hold them


def _name_failure(error: Exception, host: str) -> CheckpointError:
    """Return our error for one of httpx's, whose own text may hold the URL."""
    causes = list(_causes(error))
    if isinstance(error, httpx.ConnectTimeout):
        return TransientError(f"{host} did not answer within {CONNECT_TIMEOUT_S:g} s.")
    if isinstance(error, httpx.TimeoutException):
        return TransientError(f"{host} sent nothing for {READ_TIMEOUT_S:g} s.")
    if isinstance(error, httpx.ProxyError):
        return CheckpointError(f"The proxy does not connect to {host}; check HTTPS_PROXY.")
    if isinstance(error, httpx.ConnectError):
        return _name_connect_failure(causes, host)
    # Without a cause it is httpx's own complaint, not httpcore's: about the Location header.
    is_location = isinstance(error, httpx.RemoteProtocolError) and error.__cause__ is None
    is_lost = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | OSError)
    if is_lost and not is_location:
        return TransientError(f"{host} closed the connection early.")
    what = "redirects to an address that can't be read" if is_location else "can't be asked for it"
    return CheckpointError(f"{host} {what}; check the URL.")


def _name_connect_failure(causes: list[BaseException], host: str) -> CheckpointError:
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            reason = getattr(cause, "verify_message", "") or "the encryption failed"
            return CheckpointError(
                f"{host} can't be trusted ({reason}); check the URL, the clock and SSL_CERT_FILE."
            )
        if isinstance(cause, socket.gaierror):
            return TransientError(f"{host} can't be found; check its name and the network.")
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            return TransientError(f"{host} refuses the connection; check the URL's port.")
    return TransientError(f"{host} can't be reached; check the network.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
