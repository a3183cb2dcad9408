"""How an endpoint writes its errors: our one shape, or that of a door's dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.responses import Response

from lpw_sdxl.api.asgi import JSON, JsonObject
from lpw_sdxl.api.error_answer import ErrorAnswer


class ErrorNote(NamedTuple):
    """What the log and the metrics tell of an error."""

    code: str
    field: str | None


def _same(answer: ErrorAnswer) -> ErrorAnswer:
    return answer


@dataclass(frozen=True)
class ErrorDialect:
    """A shape of errors.

    Attributes:
        name: begins the names of its responses in the OpenAPI document; empty for our own.
        write: makes the JSON body of an error.
        read: what a JSON body tells if it is of this shape; None if it is not.
        schema: of the body, for these codes.
        adapt: changes status and headers to what the dialect's clients expect.
    """

    name: str
    write: Callable[[ErrorAnswer], JsonObject]
    read: Callable[[Any], ErrorNote | None]
    schema: Callable[[Sequence[str]], JsonObject]
    adapt: Callable[[ErrorAnswer], ErrorAnswer] = _same

    def response(self, error: ErrorAnswer) -> Response:
        """Return an error as an answer that is ready to be sent."""
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
