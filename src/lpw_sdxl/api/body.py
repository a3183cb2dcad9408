"""A request's body: how large it may be, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping

from lpw_sdxl.api.asgi import Message, Receive
from lpw_sdxl.api.errors import ErrorAnswer
from lpw_sdxl.errors import ClientLeftError
from lpw_sdxl.settings import Settings

ESCAPED_CHARACTER_BYTES = 12  # JSON's longest way to write one: a pair of \uXXXX
OTHER_FIELDS_BYTES = 64 * 1024  # all but the prompts; 16 LoRAs with escaped names are a third of it
INFO_BYTES = 1024  # it takes {}


def body_limits(settings: Settings) -> Mapping[str, int]:
    """Say how large a body each path takes, bytes: what the settings let a valid one need."""
    prompts = 2 * settings.max_prompt_characters * ESCAPED_CHARACTER_BYTES
    needs = {
        "/generate": prompts + OTHER_FIELDS_BYTES,
        "/inspect_prompt": prompts + OTHER_FIELDS_BYTES,
        "/info": INFO_BYTES,
        "/generate_batch": settings.max_body_bytes,
    }
    return {path: min(need, settings.max_body_bytes) for path, need in needs.items()}


def too_large(limit: int) -> ErrorAnswer:
    """Refuse a body of more bytes than the limit."""
    message = f"the body is larger than the {limit} bytes accepted here"
    return ErrorAnswer(413, "body_too_large", message)


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """Read the whole body, or None as soon as it is over the limit (bytes).

    Raises:
        ClientLeftError: if the client leaves before it is here.
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


def replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once more, then whatever the connection says (such as its end)."""
    is_given = False

    async def replayed() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
