"""What is refused by its headers and address alone, before a byte of the body is read."""

from __future__ import annotations

import re

from lpw_sdxl.api.asgi import Scope, header_values
from lpw_sdxl.api.body import too_large
from lpw_sdxl.api.errors import ErrorAnswer

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024  # names and values together
SMALL_BODY_BYTES = 64 * 1024  # what the server has in its buffer anyway, read or not
_JSON = re.compile(r'application/json\s*(;\s*charset\s*=\s*("?)(utf-8|us-ascii)\2\s*)?;?\s*')


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
    """Refuse a request by what its address and headers say of its fields and body.

    Args:
        scope: the request's.
        limit: the body's, bytes; 0 where none has a use.
    """
    announced = announced_bytes(scope)
    if limit == 0:
        has_none = announced == 0
        return None if has_none else ErrorAnswer(413, "body_too_large", "this path takes no body")
    if not _is_json(scope):
        return ErrorAnswer.from_status(415)
    if any(value.lower() != b"identity" for value in header_values(scope, b"content-encoding")):
        return ErrorAnswer(
            415,
            "unsupported_media_type",
            "a body with a content-encoding is not read; it must be sent as plain JSON",
        )
    if scope.get("query_string"):  # whoever writes fields there would see them ignored
        return ErrorAnswer(
            400,
            "invalid_request",
            "the address has a query, which is not read; fields belong into the JSON body",
        )
    if announced is not None and announced > limit:
        return too_large(limit)
    return None


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


def _is_json(scope: Scope) -> bool:
    """Tell whether the body says that it is JSON; anything else BentoML would guess at."""
    types = header_values(scope, b"content-type")
    return (
        len(types) == 1 and _JSON.fullmatch(types[0].decode("latin-1").strip().lower()) is not None
    )
