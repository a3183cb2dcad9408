"""A bucket on loopback: what is put there is kept, and can be read again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from web import QuietHandler

REFUSED = "refused"
"""The beginning of a key that is not taken."""


class Kept(NamedTuple):
    content: bytes
    media_type: str
    authorization: str


class Bucket:
    """An S3 server as far as putting and reading files goes."""

    def __init__(self) -> None:
        self.files: dict[str, Kept] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self.files))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[Bucket]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _handler_of(files: dict[str, Kept]) -> type[BaseHTTPRequestHandler]:
    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            content = self._read()
            path = unquote(urlsplit(self.path).path)
            if path.split("/")[2] == REFUSED:
                self.respond(403, b"<Error><Code>AccessDenied</Code></Error>")
                return
            media_type = self.headers["content-type"] or ""
            files[path] = Kept(content, media_type, self.headers["authorization"] or "")
            self.respond(200, b"")

        def do_GET(self) -> None:
            found = files.get(unquote(urlsplit(self.path).path))
            self.respond(200 if found else 404, found.content if found else b"")

        def _read(self) -> bytes:
            """Read a body, which boto3 sends in chunks with a checksum where it can."""
            content = self.rfile.read(int(self.headers["content-length"]))
            if "aws-chunked" not in (self.headers["content-encoding"] or ""):
                return content
            whole, rest = b"", content
            while rest:
                head, _, rest = rest.partition(b"\r\n")
                size = int(head.split(b";")[0] or b"0", 16)
                if not size:
                    break
                whole, rest = whole + rest[:size], rest[size + 2 :]
            return whole

    return Handler
