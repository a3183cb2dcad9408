"""A request's body: how large it may be, what it must say that it is, and how it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lpw_sdxl.api.asgi import Message, Receive, Scope, header_values
from lpw_sdxl.api.errors import ErrorAnswer
from lpw_sdxl.errors import ClientLeftError
from lpw_sdxl.settings import Settings

ESCAPED_CHARACTER_BYTES = 12  # JSON's longest way to write one: a pair of \uXXXX
OTHER_FIELDS_BYTES = 64 * 1024  # all but the prompts; 16 LoRAs with escaped names are a third of it
INFO_BYTES = 1024  # it takes {}
MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024  # names and values together
SMALL_BODY_BYTES = 64 * 1024  # what the server has in its buffer anyway, read or not
_JSON = re.compile(r'application/json\s*(;\s*charset\s*=\s*("?)(utf-8|us-ascii)\2\s*)?;?\s*')


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


def refuse_headers(scope: Scope) -> ErrorAnswer | None:
    """Refuse headers that are too many or too large, or two lengths for one body."""
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size > MAX_HEADER_BYTES or len(scope["headers"]) > MAX_HEADERS:
        return ErrorAnswer.from_status(431)
    if header_values(scope, b"content-length") and header_values(scope, b"transfer-encoding"):
        return ErrorAnswer(
            400,
            "invalid_request",
            "a request has content-length or transfer-encoding, not both",
        )
    return None


def refuse_announced(scope: Scope, limit: int) -> ErrorAnswer | None:
    """Refuse a body by its headers alone, before a byte of it is read.

    Args:
        scope: the request's.
        limit: bytes; 0 where no body has a use.
    """
    announced = announced_bytes(scope)
    if limit == 0 and announced != 0:
        return ErrorAnswer(413, "body_too_large", "this path takes no body")
    if announced is not None and announced > limit:
        return too_large(limit)
    if limit and not _is_json(scope):
        return ErrorAnswer.from_status(415)
    return None


def too_large(limit: int) -> ErrorAnswer:
    """Refuse a body of more bytes than the limit."""
    message = f"the body is larger than the {limit} bytes accepted here"
    return ErrorAnswer(413, "body_too_large", message)


def announced_bytes(scope: Scope) -> int | None:
    """Give the body's length as the headers tell it; None for a chunked body, which has none."""
    if header_values(scope, b"transfer-encoding"):
        return None
    lengths = header_values(scope, b"content-length")
    return int(lengths[0]) if lengths else 0  # the server below us has refused what is no number


def is_small(scope: Scope) -> bool:
    """Tell whether a body is so small that it need not cost the client its connection."""
    announced = announced_bytes(scope)
    return announced is not None and announced <= SMALL_BODY_BYTES


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


def _is_json(scope: Scope) -> bool:
    """Tell whether the body says that it is plain JSON; anything else BentoML would guess at."""
    types = header_values(scope, b"content-type")
    encodings = header_values(scope, b"content-encoding")
    is_plain = all(encoding.strip().lower() in (b"", b"identity") for encoding in encodings)
    return (
        is_plain
        and len(types) == 1
        and _JSON.fullmatch(types[0].decode("latin-1").strip().lower()) is not None
    )
