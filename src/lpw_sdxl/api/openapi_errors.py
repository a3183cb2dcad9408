"""The errors' part of the OpenAPI document, read from the same tables that the answers are.

An error class or a status that is added there is in the document without a word here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lpw_sdxl.api.dialect import ErrorDialect
from lpw_sdxl.api.errors import ErrorAnswer
from lpw_sdxl.errors import (
    STATUS_ANSWERS,
    ClientLeftError,
    GenerationError,
    LpwSdxlError,
    RequestError,
    UnavailableError,
)

JsonObject = dict[str, Any]

# What the guard answers before anything below it is asked: for its head, and for its body.
HEAD_STATUSES = frozenset({400, 401, 403, 413, 431})
BODY_STATUSES = frozenset({408, 415})
_ANSWERED = (RequestError, GenerationError, UnavailableError)
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
    for status in (429, 503)
}


def error_codes() -> dict[int, tuple[str, ...]]:
    """List every code that a client can be answered with, by its status."""
    codes: dict[int, list[str]] = {}
    for status, code in (*_codes_of_statuses(), *_codes_of_errors()):
        if code not in codes.setdefault(status, []):
            codes[status].append(code)
    return {status: tuple(found) for status, found in sorted(codes.items())}


def error_responses(dialect: ErrorDialect, *, has_tokens: bool) -> JsonObject:
    """Write each status's response in a dialect, for the document's components.

    Args:
        dialect: whose shape the bodies have.
        has_tokens: whether requests need one; without, nothing is a 401.
    """
    return {
        response_name(dialect, status): _response(dialect, status, codes)
        for status, codes in error_codes().items()
        if status != 401 or has_tokens
    }


def response_name(dialect: ErrorDialect, status: int) -> str:
    """Return what a status's response is called among the document's components."""
    return f"{dialect.name}.{status}" if dialect.name else str(status)


def _response(dialect: ErrorDialect, status: int, codes: tuple[str, ...]) -> JsonObject:
    example = dialect.write(ErrorAnswer(status, *STATUS_ANSWERS[status]))
    content = {"application/json": {"schema": dialect.schema(codes), "example": example}}
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return {"description": ", ".join(codes), "content": content, **headers}


def _codes_of_statuses() -> Iterator[tuple[int, str]]:
    for status, (code, _) in STATUS_ANSWERS.items():
        yield status, code


def _codes_of_errors() -> Iterator[tuple[int, str]]:
    """Walk down the errors that become answers; who left reads none."""
    waiting: list[type[LpwSdxlError]] = [*_ANSWERED]
    while waiting:
        error = waiting.pop(0)
        waiting += error.__subclasses__()
        if issubclass(error, _ANSWERED) and not issubclass(error, ClientLeftError):
            yield error.status, error.code
