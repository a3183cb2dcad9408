"""The errors' part of the OpenAPI document, read from the same tables that the answers are.

An error class or a status that is added there is in the document without a word here.
"""

from __future__ import annotations

from lpw_sdxl.api.asgi import JSON, JsonObject
from lpw_sdxl.api.dialect import ErrorDialect
from lpw_sdxl.api.error_answer import RETRIED_STATUSES, ErrorAnswer
from lpw_sdxl.errors import STATUS_ANSWERS, ClientLeftError, error_codes

# What the guard answers before anything below it is asked: for its head, and for its body.
HEAD_STATUSES = frozenset({400, 401, 403, 413, 431})
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
    """List every code that a client can read, by its status."""
    codes = error_codes()
    del codes[ClientLeftError.status]
    return codes


def error_responses(dialect: ErrorDialect, *, has_tokens: bool) -> JsonObject:
    """Write each status's response in a dialect, for the document's components.

    Args:
        dialect: whose shape the bodies have.
        has_tokens: whether requests need one; without, nothing is a 401.
    """
    return {
        response_name(dialect, status): _response(dialect, status, codes)
        for status, codes in answered_codes().items()
        if status != 401 or has_tokens
    }


def response_name(dialect: ErrorDialect, status: int) -> str:
    """Return what a status's response is called among the document's components."""
    return f"{dialect.name}.{status}" if dialect.name else str(status)


def _response(dialect: ErrorDialect, status: int, codes: tuple[str, ...]) -> JsonObject:
    example = dialect.write(ErrorAnswer(status, *STATUS_ANSWERS[status]))
    content = {JSON: {"schema": dialect.schema(codes), "example": example}}
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return {"description": ", ".join(codes), "content": content, **headers}
