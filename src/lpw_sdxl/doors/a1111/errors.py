"""A1111's shape of errors: `{"error", "detail", "message"}`.

None of its clients reads more than the status and one of these texts: FastAPI's `detail`, or
`message`. A server of A1111's asks for a password by HTTP's Basic, and some clients look for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lpw_sdxl.api.asgi import JsonObject
from lpw_sdxl.api.dialect import ErrorDialect, ErrorNote
from lpw_sdxl.api.error_answer import ErrorAnswer

UNAUTHORIZED = 401
CHALLENGE = 'Basic realm="lpw-sdxl"'


def write_error(answer: ErrorAnswer) -> JsonObject:
    """Build the body of an error."""
    return {
        "error": answer.code,
        "detail": answer.message,
        "message": answer.message,
        "field": answer.field,
    }


def _read(body: Any) -> ErrorNote | None:
    if not isinstance(body, dict) or not isinstance(body.get("error"), str):
        return None
    return ErrorNote(body["error"], body.get("field"))


def _schema(codes: Sequence[str]) -> JsonObject:
    sentence = {"type": "string", "description": "One sentence for a person."}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["error", "detail", "message", "field"],
        "properties": {
            "error": {"type": "string", "enum": [*codes]},
            "detail": sentence,
            "message": {"type": "string", "description": "The same sentence."},
            "field": {
                "type": ["string", "null"],
                "description": "The request's field at fault, as the client named it.",
            },
        },
    }


def _adapt(answer: ErrorAnswer) -> ErrorAnswer:
    """Demand a password as A1111 does, so that its clients and browsers know what to send."""
    if answer.status != UNAUTHORIZED:
        return answer
    return replace(answer, headers={**answer.headers, "www-authenticate": CHALLENGE})


A1111 = ErrorDialect("a1111", write_error, _read, _schema, _adapt)
"""A1111's errors."""
