"""The shape of an endpoint's errors: our own, or that of another API whose clients it serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.responses import Response

from lpw_sdxl.api.asgi import JSON, JsonObject
from lpw_sdxl.api.error_answer import ErrorAnswer


class ErrorNote(NamedTuple):
    """The part of an error that is logged and counted."""

    code: str
    field: str | None


def _unchanged(answer: ErrorAnswer) -> ErrorAnswer:
    return answer


@dataclass(frozen=True)
class ErrorDialect:
    """A shape of errors, written and read.

    Attributes:
        name: prefix of its responses' names in the OpenAPI document; empty for our own.
        write: builds the JSON body of an error.
        read: extracts code and field from a JSON body; None if it has another shape.
        schema: builds the body's JSON schema for some codes.
        adapt: changes status and headers to what the dialect's clients expect.
    """

    name: str
    write: Callable[[ErrorAnswer], JsonObject]
    read: Callable[[Any], ErrorNote | None]
    schema: Callable[[Sequence[str]], JsonObject]
    adapt: Callable[[ErrorAnswer], ErrorAnswer] = _unchanged

    def response(self, error: ErrorAnswer) -> Response:
        """Return the HTTP response for an error."""
        error = self.adapt(error)
        body = json.dumps(self.write(error)).encode()
        return Response(body, error.status, error.headers, JSON)


def _write(answer: ErrorAnswer) -> JsonObject:
    return {"error": answer.detail()}


def _read(body: Any) -> ErrorNote | None:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or "code" not in error:
        return None
    return ErrorNote(error["code"], error.get("field"))


def _schema(codes: Sequence[str]) -> JsonObject:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "additionalProperties": False,
                "required": ["code", "message", "field"],
                "properties": {
                    "code": {"type": "string", "enum": list(codes)},
                    "message": {"type": "string", "description": "One sentence for a person."},
                    "field": {
                        "type": ["string", "null"],
                        "description": "The request's field at fault, such as `loras.0.name`.",
                    },
                },
            }
        },
    }


NATIVE = ErrorDialect("", _write, _read, _schema)
"""Our own shape, `{"error": {"code", "message", "field"}}`."""
