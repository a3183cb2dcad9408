"""The errors' part of the OpenAPI document, read from the tables that answers are made from.

An error class or a status that is added there appears in the document without a change here.
"""

from __future__ import annotations

from lpw_sdxl.api.asgi import JSON, JsonObject
from lpw_sdxl.api.dialect import ErrorDialect
from lpw_sdxl.api.error_answer import RETRIED_STATUSES, ErrorAnswer
from lpw_sdxl.errors import STATUS_ANSWERS, ClientLeftError, error_codes

# Statuses that the guard decides by itself, by a request's head, by its body, and by how many
# others are under way.
HEAD_STATUSES = frozenset({400, 401, 403, 413, 429, 431})
BODY_STATUSES = frozenset({408, 415})
_HEADERS: dict[int, JsonObject] = {
    401: {
        "www-authenticate": {
            "required": True,
            "schema": {"type": "string"},
            "description": "Which scheme would be right.",
        }
    },
    405: {
        "allow": {
            "required": True,
            "schema": {"type": "string"},
            "description": "The methods that the path takes.",
        }
    },
} | {
    status: {
        "retry-after": {
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
            "description": "Seconds after which another try is worth while.",
        }
    }
    for status in RETRIED_STATUSES
}


def answered_codes() -> dict[int, tuple[str, ...]]:
    """List every error code that a client can receive, by status."""
    codes = error_codes()
    del codes[ClientLeftError.status]
    return codes


def error_responses(dialect: ErrorDialect, *, has_tokens: bool) -> JsonObject:
    """Build each status's response in a dialect, for the document's components.

    Args:
        dialect: the shape of the bodies.
        has_tokens: whether requests need a token; if not, there is no 401.
    """
    return {
        response_name(dialect, status): _response(dialect, status, codes)
        for status, codes in answered_codes().items()
        if status != 401 or has_tokens
    }


def response_name(dialect: ErrorDialect, status: int) -> str:
    """Build the name of a status's response among the document's components."""
    return f"{dialect.name}.{status}" if dialect.name else str(status)


def _response(dialect: ErrorDialect, status: int, codes: tuple[str, ...]) -> JsonObject:
    example = dialect.write(ErrorAnswer(status, *STATUS_ANSWERS[status]))
    content = {JSON: {"schema": dialect.schema(codes), "example": example}}
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return {"description": ", ".join(codes), "content": content, **headers}
