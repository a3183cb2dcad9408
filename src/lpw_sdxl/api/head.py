"""Checks of a request's headers and address, before a byte of the body is read."""

from __future__ import annotations

from lpw_sdxl.api.asgi import JSON, Scope, header_values
from lpw_sdxl.api.body import body_too_large
from lpw_sdxl.api.endpoints import Body, HeadCheck
from lpw_sdxl.api.error_answer import ErrorAnswer

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024  # names and values together
SMALL_BODY_BYTES = 64 * 1024  # as much is in the server's buffer anyway, read or not
_CHARSETS = frozenset({"utf-8", '"utf-8"', "us-ascii", '"us-ascii"'})


def refuse_headers(scope: Scope) -> ErrorAnswer | None:
    """Refuse headers that are too many or too large, or that give a body two lengths."""
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


def refuse_body_headers(scope: Scope, body: Body | None) -> ErrorAnswer | None:
    """Refuse a request whose headers or address announce a body that its endpoint does not accept.

    Args:
        scope: the request's.
        body: what the endpoint accepts; None for no body.
    """
    announced = announced_bytes(scope)
    if body is None:
        has_none = announced == 0
        return None if has_none else ErrorAnswer(413, "body_too_large", "this path takes no body")
    if body.head_check is HeadCheck.STRICT and not _is_accepted_type(scope, body):
        return ErrorAnswer.from_status(415)
    if any(value.lower() != b"identity" for value in header_values(scope, b"content-encoding")):
        return ErrorAnswer(
            415,
            "unsupported_media_type",
            "a body with a content-encoding is not read; it must be sent as plain JSON",
        )
    if body.head_check is HeadCheck.STRICT and scope.get("query_string"):
        return ErrorAnswer(  # without this, fields in the query would be ignored
            400,
            "invalid_request",
            "the address has a query, which is not read; fields belong into the JSON body",
        )
    if announced is not None and announced > body.limit:
        return body_too_large(body.limit)
    return None


def announced_bytes(scope: Scope) -> int | None:
    """Return the body's length in bytes by the headers; None for a chunked body, which has none."""
    if header_values(scope, b"transfer-encoding"):
        return None
    lengths = header_values(scope, b"content-length")
    return int(lengths[0]) if lengths else 0  # uvicorn has refused what is no number


def has_small_body(scope: Scope) -> bool:
    """Return whether a body is so small that its connection can stay open after a refusal."""
    announced = announced_bytes(scope)
    return announced is not None and announced <= SMALL_BODY_BYTES


def content_type(scope: Scope) -> str:
    """Return the Content-Type of a request; empty if it has none, or more than one."""
    types = header_values(scope, b"content-type")
    return types[0].decode("latin-1").strip() if len(types) == 1 else ""


def _is_accepted_type(scope: Scope, body: Body) -> bool:
    """Return whether the Content-Type is accepted; JSON also needs a supported charset."""
    media_type, *parameters = (part.strip() for part in content_type(scope).lower().split(";"))
    if media_type not in body.media_types:
        return False
    if media_type != JSON:
        return True
    if parameters and not parameters[-1]:
        parameters.pop()
    return all(_is_charset(one) for one in parameters) and len(parameters) <= 1


def _is_charset(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "charset" and value.strip() in _CHARSETS
