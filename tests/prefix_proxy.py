"""A reverse proxy that serves another server under a prefix, as a gateway does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

PREFIX = "/some/prefix"


@contextmanager
def prefixed(url: str) -> Iterator[str]:
    """Serve a server under `PREFIX` until the block ends; one request a connection."""
    target = urlsplit(url)
    ready = threading.Event()
    address: list[str] = []
    loop = asyncio.new_event_loop()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, rest = head.split(b" ", 2)
            if not path.startswith(f"{PREFIX}/".encode()):
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                writer.close()
                return
            rest = rest.replace(b"Connection: keep-alive\r\n", b"")
            rest = rest.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
            back, forth = await asyncio.open_connection(target.hostname, target.port)
            forth.write(b" ".join((method, path[len(PREFIX) :], rest)))
            sending = asyncio.create_task(pipe(reader, forth))
            await pipe(back, writer)
            sending.cancel()
            writer.close()
            forth.close()

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()

    async def serve() -> None:
        server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
        address.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{PREFIX}")
        ready.set()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop)
    assert ready.wait(10)
    try:
        yield address[0]
    finally:

        async def stop() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            loop.call_soon(loop.stop)

        asyncio.run_coroutine_threadsafe(stop(), loop)
        thread.join(10)
