"""OpenAI's shape of errors: `{"error": {"message", "type", "param", "code"}}`.

Its clients repeat a request three times on 408, 409, 429 and every 5xx, unless a header forbids it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lpw_sdxl.api.asgi import JsonObject
from lpw_sdxl.api.dialect import ErrorDialect, ErrorNote
from lpw_sdxl.api.error_answer import RETRIED_STATUSES, ErrorAnswer

INVALID, SERVER = "invalid_request_error", "server_error"
TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found",
    429: "rate_limit_error",
}
"""Type of an error by its status; any other below 500 is `invalid_request_error`."""
SHOULD_RETRY = "x-should-retry"
_NAMES: Mapping[str, str] = {"mask_image": "mask"}  # our fields that OpenAI calls otherwise
_LONGEST_RETRY_S = 60  # after which OpenAI's clients no longer heed Retry-After


def write_error(answer: ErrorAnswer) -> JsonObject:
    """Build the body of an error."""
    other = SERVER if answer.status >= 500 else INVALID
    first, dot, rest = (answer.field or "").partition(".")
    return {
        "error": {
            "message": answer.message,
            "type": TYPES.get(answer.status, other),
            "param": f"{_NAMES.get(first, first)}{dot}{rest}" or None,
            "code": answer.code,
        }
    }


def _read(body: Any) -> ErrorNote | None:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or "code" not in error or "param" not in error:
        return None
    return ErrorNote(error["code"], error["param"])


def _schema(codes: Sequence[str]) -> JsonObject:
    types = [*TYPES.values(), INVALID, SERVER]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "additionalProperties": False,
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string", "description": "One sentence for a person."},
                    "type": {"type": "string", "enum": types},
                    "param": {
                        "type": ["string", "null"],
                        "description": "The request's field at fault, as the client named it.",
                    },
                    "code": {"type": "string", "enum": [*codes]},
                },
            }
        },
    }


def _adapt(answer: ErrorAnswer) -> ErrorAnswer:
    """Forbid repetitions that would only cost the device again, and cap how long they wait."""
    headers = {**answer.headers}
    if answer.status not in RETRIED_STATUSES:
        headers[SHOULD_RETRY] = "false"
    elif int(headers.get("retry-after", 0)) > _LONGEST_RETRY_S:
        headers["retry-after"] = str(_LONGEST_RETRY_S)
    return replace(answer, headers=headers)


OPENAI = ErrorDialect("openai", write_error, _read, _schema, _adapt)
"""OpenAI's errors."""
