"""A reverse proxy that serves another server under a prefix, as a gateway does."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

PREFIX = "/some/prefix"


@contextmanager
def prefixed(url: str) -> Iterator[str]:
    """Serve a server under `PREFIX` until the block ends; one request a connection."""
    target = urlsplit(url)
    assert target.hostname is not None
    address = (target.hostname, target.port)

    class PassOn(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.pass_on()

        def pass_on(self) -> None:
            method, path, version = self.rfile.readline().split(b" ")
            if not path.startswith(f"{PREFIX}/".encode()):
                self.wfile.write(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n")
                return
            lines = [b" ".join((method, path[len(PREFIX) :], version))]
            while (line := self.rfile.readline()) != b"\r\n":
                lines.append(line)
            kept = [line for line in lines if not line.lower().startswith(b"connection:")]
            length = [line.split(b":")[1] for line in kept if line.lower().startswith(b"content-l")]
            with socket.create_connection(address) as back:
                back.sendall(b"".join(kept) + b"connection: close\r\n\r\n")
                back.sendall(self.rfile.read(int(length[0]) if length else 0))
                while piece := back.recv(65536):
                    self.wfile.write(piece)

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Proxy(("127.0.0.1", 0), PassOn) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}{PREFIX}"
        server.shutdown()
        thread.join()
