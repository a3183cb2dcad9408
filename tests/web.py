"""A real HTTP server on 127.0.0.1 whose answers a test scripts, and which remembers every request.

with WebServer() as server:
    server.on("/model", Status(503), File(content))    # the last answer is given for ever
    ... server.url("/model") ...
    assert server.requests[0].headers["range"] == "bytes=0-"
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import BinaryIO, Protocol, Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """A request as it came; header names in lower case."""

    path: str
    query: str
    headers: Mapping[str, str]

    @property
    def key(self) -> str | None:
        return self.headers.get("authorization")


class QuietHandler(BaseHTTPRequestHandler):
    """A handler of requests that writes no log."""

    def respond(self, status: int, body: bytes = b"", media_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


class Answer(Protocol):
    """What one request gets."""

    def send(self, handler: BaseHTTPRequestHandler, request: Request) -> None: ...


class WebServer:
    """Answers on a free port of 127.0.0.1, one thread for each connection."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._answers: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def url(self, path: str = "", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def on(self, path: str, *answers: Answer) -> None:
        """Give these answers to the requests of a path, in turn; the last one for ever."""
        with self._lock:
            self._answers[path] = list(answers)

    def of(self, path: str) -> list[Request]:
        """The requests that came for a path."""
        with self._lock:
            return [request for request in self.requests if request.path == path]

    def take(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            answers = self._answers.get(request.path, [Status(404)])
            return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass(frozen=True)
class Status:
    """A status with a short body."""

    status: int
    body: bytes = b"no"
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(self.body)))
        handler.end_headers()
        handler.wfile.write(self.body)


def redirect(location: str, status: int = 307, **headers: str) -> Status:
    return Status(status, b"", {"Location": location, **headers})


def login_page() -> Status:
    return Status(200, b"<html><title>Log in</title></html>", {"Content-Type": "text/html"})


def json_answer(value: object) -> Status:
    return Status(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Keyed:
    """401 without a key, 403 with a wrong one, else another answer."""

    key: str
    answer: Answer

    def send(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        if request.key is None:
            Status(401).send(handler, request)
        elif request.key != f"Bearer {self.key}":
            Status(403).send(handler, request)
        else:
            self.answer.send(handler, request)


@dataclass(frozen=True)
class File:
    """A file's bytes, as a good server sends them or as a bad one does.

    Attributes:
        content: the whole file.
        etag: sent with it and compared with If-Range; None for none.
        modified: Last-Modified, likewise.
        ranges: whether a Range is obeyed.
        drop_after: bytes of the body after which the connection is closed.
        length: declared instead of the true one; None for a body without Content-Length.
        chunked: whether a body without length is chunked; else the connection's end ends it.
        content_range: sent instead of the true one.
        wait_s: between two pieces of 8 KiB.
        headers: sent as well.
    """

    content: bytes
    etag: str | None = '"v1"'
    modified: str | None = None
    ranges: bool = True
    drop_after: int | None = None
    length: int | None = -1
    chunked: bool = False
    content_range: str | None = None
    wait_s: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        start = self._start(request)
        body = self.content[start or 0 :]
        total = len(self.content)
        if start is not None and start >= total:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{total}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(200 if start is None else 206)
        if start is not None:
            right = f"bytes {start}-{total - 1}/{total}"
            handler.send_header("Content-Range", self.content_range or right)
        self._send_headers(handler, len(body))
        self._send_body(handler, body)

    def _start(self, request: Request) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        validator = request.headers.get("if-range")
        is_same = validator in (None, self.etag, self.modified)
        return int(asked[1]) if asked and self.ranges and is_same else None

    def _send_headers(self, handler: BaseHTTPRequestHandler, length: int) -> None:
        named = {"ETag": self.etag, "Last-Modified": self.modified, **self.headers}
        for name, value in named.items():
            if value is not None:
                handler.send_header(name, value)
        if self.length is not None:
            declared = length if self.length == -1 else self.length
            handler.send_header("Content-Length", str(declared))
        elif self.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Connection", "close")
        handler.end_headers()

    def _send_body(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        is_cut = self.drop_after is not None and self.drop_after <= len(body)
        body = body[: self.drop_after] if is_cut else body
        for start in range(0, len(body), 8192):
            piece = body[start : start + 8192]
            if self.chunked:
                piece = b"%x\r\n%s\r\n" % (len(piece), piece)
            handler.wfile.write(piece)
            time.sleep(self.wait_s)
        if self.chunked and not is_cut:
            handler.wfile.write(b"0\r\n\r\n")
        if is_cut or self.length not in (None, -1):
            _hang_up(handler)


@dataclass(frozen=True)
class Counted:
    """Another answer, whose bytes are counted in `counts`, one number for each write."""

    answer: Answer
    counts: list[int] = field(default_factory=list)

    def send(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        handler.wfile = _CountingFile(handler.wfile, self.counts)
        self.answer.send(handler, request)


@dataclass(frozen=True)
class Endless:
    """Chunks for ever, or until the client has enough."""

    def send(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"2000\r\n" + bytes(0x2000) + b"\r\n")


@dataclass(frozen=True)
class Waits:
    """Another answer, once an event is set."""

    event: threading.Event
    answer: Answer

    def send(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        self.event.wait(20)
        self.answer.send(handler, request)


def civitai_record(
    version_id: int,
    download_url: str,
    *,
    file: Mapping[str, object] | None = None,
    **changes: object,
) -> dict[str, object]:
    """A version as Civitai describes it (developer.civitai.com/site/reference/model-versions)."""
    usual: dict[str, object] = {
        "id": 2402203,
        "name": "waiIllustriousSDXL_v160.safetensors",
        "type": "Model",
        "sizeKB": None,
        "metadata": {"format": "SafeTensor", "size": "pruned", "fp": "fp16"},
        "pickleScanResult": "Success",
        "hashes": {"AutoV2": "A5F58EB1C3"},
        "downloadUrl": download_url,
        "primary": True,
    }
    return {
        "id": version_id,
        "modelId": 827184,
        "name": "v16.0",
        "description": None,
        "baseModel": "Illustrious",
        "trainedWords": ["masterpiece", "best quality"],
        "model": {"name": "WAI-illustrious-SDXL", "type": "Checkpoint", "nsfw": False},
        "files": [usual | dict(file or {})],
        "images": [],
        "downloadUrl": download_url,
        **changes,
    }


class _CountingFile:
    """A file that counts what is written to it."""

    def __init__(self, file: BinaryIO, counts: list[int]) -> None:
        self._file = file
        self._counts = counts

    def write(self, data: bytes) -> int:
        written = self._file.write(data)
        self._counts.append(len(data))
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about."""


def _handler_of(server: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(parts.path, parts.query, headers)
            server.take(request).send(self, request)

        def log_message(self, *args: object) -> None:
            """The requests are in `server.requests`."""

    return Handler


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
