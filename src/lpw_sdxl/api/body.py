"""Reading of a request's body from the connection, under a limit."""

from __future__ import annotations

from lpw_sdxl.api.asgi import Receive
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.errors import ClientLeftError


def body_too_large(limit: int) -> ErrorAnswer:
    """Build the error for a body of more bytes than the limit."""
    message = f"the body is larger than the {limit} bytes accepted here"
    return ErrorAnswer(413, "body_too_large", message)


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """Read the whole body; return None as soon as it exceeds the limit (bytes).

    Raises:
        ClientLeftError: if the client disconnects before the end of the body.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError("the client left before its body was here")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks)
