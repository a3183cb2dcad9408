"""What is refused by its headers and address alone, before a byte of the body is read."""

from __future__ import annotations

from lpw_sdxl.api.asgi import JSON, Scope, header_values
from lpw_sdxl.api.body import too_large
from lpw_sdxl.api.endpoints import Body, HeadCheck
from lpw_sdxl.api.error_answer import ErrorAnswer

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024  # names and values together
SMALL_BODY_BYTES = 64 * 1024  # what the server has in its buffer anyway, read or not
_CHARSETS = frozenset({"utf-8", '"utf-8"', "us-ascii", '"us-ascii"'})


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


def refuse_body_headers(scope: Scope, body: Body | None) -> ErrorAnswer | None:
    """Refuse a request by what its address and headers say of its fields and body.

    Args:
        scope: the request's.
        body: what the endpoint takes; None for nothing.
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
        return ErrorAnswer(  # else fields that are written there would be ignored
            400,
            "invalid_request",
            "the address has a query, which is not read; fields belong into the JSON body",
        )
    if announced is not None and announced > body.limit:
        return too_large(body.limit)
    return None


def announced_bytes(scope: Scope) -> int | None:
    """Return the body's length as the headers tell it; None for a chunked body, which has none."""
    if header_values(scope, b"transfer-encoding"):
        return None
    lengths = header_values(scope, b"content-length")
    return int(lengths[0]) if lengths else 0  # the server below us has refused what is no number


def has_small_body(scope: Scope) -> bool:
    """Tell whether a body is so small that it need not cost the client its connection."""
    announced = announced_bytes(scope)
    return announced is not None and announced <= SMALL_BODY_BYTES


def content_type(scope: Scope) -> str:
    """Return what the request says that its body is; empty where it doesn't, or says it twice."""
    types = header_values(scope, b"content-type")
    return types[0].decode("latin-1").strip() if len(types) == 1 else ""


def _is_accepted_type(scope: Scope, body: Body) -> bool:
    """Tell whether the body says that it is what is taken; of JSON, in an encoding that is read."""
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
