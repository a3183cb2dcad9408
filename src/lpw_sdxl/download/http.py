"""One careful HTTP client: where the key goes, which redirects are followed, failures by name.

A key is sent in a header, to its own origin only, and only while a chain of redirects that began
there has not left it: a chain that comes back goes on without the key. httpx reads no .netrc unless
it is asked to (0.28.1), and a user or password in a redirect is refused, so nothing else is ever
sent as a credential.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx

from lpw_sdxl import __version__
from lpw_sdxl.download.answers import Asked, check_answer, login_needed
from lpw_sdxl.download.failures import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, with_named_failures
from lpw_sdxl.download.key import Key
from lpw_sdxl.download.urls import check_url, is_loopback
from lpw_sdxl.errors import CheckpointError

MAX_REDIRECTS = 10

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LOGIN = re.compile(r"/(login|log-in|signin|sign-in|sign_in)(/|$)", re.I)
_HTTPCORES = ("connection", "http11", "http2", "proxy", "socks")
_LOGGERS = ("httpx", *(f"httpcore.{part}" for part in _HTTPCORES))


# An answer's headers about its bytes (RFC 9110 sections 8.6, 8.8 and 14.4); one that is not as the
# RFC has it counts as missing.
_NUMBER = re.compile("[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")
_STRONG_ETAG = re.compile(r'"[!#-~]{0,200}"')
_DATE = re.compile(r"[A-Za-z0-9:, +-]{1,40}")


class ContentRange(NamedTuple):
    """Where an answer's first byte is in the file, and the file's size; None if not stated."""

    start: int | None
    size: int | None


@dataclass(frozen=True)
class Response:
    """An answer that may hold a file: 200, 206 or 416.

    Attributes:
        status: HTTP status code.
        headers: by name, in any case.
        host: that answered, after redirects.
        stream: httpx's own, for `chunks`.
    """

    status: int
    headers: Mapping[str, str]
    host: str
    stream: httpx.Response

    @property
    def length(self) -> int | None:
        """Return how many bytes the answer declares, or None."""
        length = self.headers.get("content-length", "")
        return int(length) if _NUMBER.fullmatch(length) else None

    @property
    def content_range(self) -> ContentRange:
        """Return which part of the file the answer holds."""
        match = _CONTENT_RANGE.fullmatch(self.headers.get("content-range", ""))
        start, size = match.groups() if match else (None, None)
        return ContentRange(
            start=int(start) if start else None, size=int(size) if size and size != "*" else None
        )

    @property
    def validator(self) -> str | None:
        """Return what changes when the file does: its strong ETag, else its date."""
        etag, date = self.headers.get("etag", ""), self.headers.get("last-modified", "")
        if _STRONG_ETAG.fullmatch(etag):
            return etag
        return date if _DATE.fullmatch(date) else None

    def contradicts(self, validator: str | None) -> bool:
        """Return whether the answer is of another file than the one with the validator."""
        if self.validator is None or validator is None:
            return False
        # A date and an ETag can't be compared.
        is_comparable = self.validator.startswith('"') == validator.startswith('"')
        return is_comparable and self.validator != validator

    def chunks(self) -> Iterator[bytes]:
        """Yield the body's bytes as they arrive.

        Raises:
            TransientError: the connection was lost before the body's end.
        """
        parts = self.stream.iter_raw()
        while (part := with_named_failures(self.host, lambda: next(parts, None))) is not None:
            yield part


class Client:
    """An open HTTP client, as `open_client` yields it; for one thread at a time."""

    def __init__(self, client: httpx.Client, keys: Sequence[Key]) -> None:
        self._client = client
        self._keys = tuple(keys)

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Response]:
        """Request a URL and follow its redirects.

        Raises:
            TransientError: the network failed, or the server is busy.
            RefusedError: the server does not give the file.
            CheckpointError: the URL, or one that it redirects to, can't or must not be asked.
        """
        response = self._follow(url, headers or {})
        try:
            yield response
        finally:
            response.stream.close()

    def _follow(self, url: str, headers: Mapping[str, str]) -> Response:
        check_url(url)
        kept = self._key_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            check_url(url)
            key = self._key_of(url)
            kept = kept if kept is key else None
            asked = Asked(_host(url), key, has_key=kept is not None and kept.is_set)
            answer = self._send(url, headers, asked)
            if answer.status_code not in _REDIRECTS:
                return _accept(answer, asked)
            answer.close()
            url = _redirect_target(url, answer.headers.get("location", ""), asked)
        raise CheckpointError(
            f"{_host(url)} redirects more than {MAX_REDIRECTS} times; "
            "the URL of the file itself is needed."
        )

    def _key_of(self, url: str) -> Key | None:
        return next((key for key in self._keys if key.belongs_to(url)), None)

    def _send(self, url: str, headers: Mapping[str, str], asked: Asked) -> httpx.Response:
        def send() -> httpx.Response:
            request = self._client.build_request("GET", url, headers=dict(headers))
            if asked.has_key and asked.key is not None:
                value = asked.key.value.get_secret_value()
                request.headers["Authorization"] = f"Bearer {value}"
            return self._client.send(request, stream=True)

        return with_named_failures(asked.host, send)


@contextmanager
def open_client(keys: Sequence[Key] = ()) -> Iterator[Client]:
    """Open a client; while it is open, the loggers of httpx and httpcore are silent.

    They log whole URLs at INFO and redirects' headers at DEBUG, so a presigned URL would end up in
    a log. They are as they were afterwards.

    Raises:
        CheckpointError: a key, or the environment's proxy or certificates, can't be used.
    """
    for key in keys:
        key.check()
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    headers = {
        "User-Agent": f"lpw-sdxl/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }
    client = None
    # Raised below instead: httpx's error repeats the proxy's URL, with its password.
    with suppress(ValueError, ImportError, OSError):
        # Plain http goes to this machine only: never through the environment's proxy.
        client = httpx.Client(timeout=timeout, headers=headers, mounts={"http://": None})
    if client is None:
        raise CheckpointError(
            "The environment's proxy or certificates can't be used; check HTTPS_PROXY, ALL_PROXY, "
            "NO_PROXY and SSL_CERT_FILE."
        )
    with _silenced(), client:
        yield Client(client, keys)


@contextmanager
def _silenced() -> Iterator[None]:
    # A filter of our own, not a level or a flag: another thread's client does the same meanwhile.
    def mute(_: logging.LogRecord) -> bool:
        return False

    for name in _LOGGERS:
        logging.getLogger(name).addFilter(mute)
    try:
        yield
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(mute)


def _accept(answer: httpx.Response, asked: Asked) -> Response:
    try:
        check_answer(asked, answer.status_code, answer.headers)
    except CheckpointError:
        answer.close()
        raise
    return Response(answer.status_code, answer.headers, asked.host, answer)


def _redirect_target(url: str, location: str, asked: Asked) -> str:
    try:
        target = urljoin(url, location.strip().replace(" ", "%20"))
        scheme, path, host = urlsplit(target).scheme, urlsplit(target).path, _host(target)
    except ValueError:
        host = ""
    if not location or not host:
        raise CheckpointError(f"{asked.host} redirects to an address that can't be read.")
    if _LOGIN.search(path):
        raise login_needed(asked)
    if scheme != "https" and not (is_loopback(asked.host) and is_loopback(host)):
        raise CheckpointError(
            f"{asked.host} redirects to an address that begins with {scheme}:; https is needed, "
            "so another source is."
        )
    return target


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
