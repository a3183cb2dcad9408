"""Reading of a request's body from the connection, under a limit."""

from __future__ import annotations

import asyncio
import io
import mmap
from collections.abc import Callable

from lpw_sdxl.api.asgi import Receive
from lpw_sdxl.api.body_memory import MemoryShare
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.errors import ClientLeftError


def body_too_large(limit: int) -> ErrorAnswer:
    """Build the error for a body of more bytes than the limit."""
    message = f"the body is larger than the {limit} bytes accepted here"
    return ErrorAnswer(413, "body_too_large", message)


HEAP_BYTES = 1024 * 1024
"""Larger bodies have memory of their own, which goes back to the system at once: freed blocks of
the heap may stay, and be of no use for the next body."""


_OWN = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


async def discard_body(receive: Receive, limit: int, pause_s: Callable[[], float]) -> None:
    """Read the rest of a body that was refused, up to a limit (bytes), and keep nothing of it.

    A connection that is closed while its client still sends is reset, and the client may never see
    the answer.

    Args:
        receive: of the request.
        limit: bytes.
        pause_s: returns how long to wait before the next read, seconds.
    """
    size = 0
    while size <= limit:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        await asyncio.sleep(pause_s())


async def read_body(receive: Receive, limit: int, share: MemoryShare) -> bytes | memoryview | None:
    """Read the whole body; return None as soon as it exceeds the limit (bytes).

    Args:
        receive: of the request.
        limit: bytes.
        share: grows with the body.

    Raises:
        ClientLeftError: if the client disconnects before the end of the body.
        OverloadedError: if all bodies together leave no room.
    """
    content: io.BytesIO | mmap.mmap = io.BytesIO()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError("the client left before its body was here")
        piece = message.get("body", b"")
        if (size := content.tell() + len(piece)) > limit:
            return None
        share.set(size)
        if size > HEAP_BYTES and isinstance(content, io.BytesIO):
            beginning = content.getbuffer()
            content = mmap.mmap(-1, limit, flags=_OWN)  # takes what is written, not its length
            content.write(beginning)
        content.write(piece)
        if not message.get("more_body", False):
            break
    return content.getvalue() if isinstance(content, io.BytesIO) else memoryview(content)[:size]
