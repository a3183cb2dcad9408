"""Answers of small JSON, and the rows of lists and commands."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Field, RootModel, create_model
from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.endpoints import (
    READING_METHODS,
    Answer,
    Backend,
    Body,
    Call,
    Endpoint,
    Handler,
    HeadCheck,
)
from lpw_sdxl.doors.a1111.bodies import SMALL_BYTES, ignore_body

API = "/sdapi/v1"
AT_ONCE = 4
PICTURE_BYTES = 1.0  # made of each byte of a body: a picture's file has three quarters of its text


class AnyBody(RootModel[Any]):
    """Any JSON: the body of a command means nothing."""


def document_loosely(model: type[BaseModel]) -> type[BaseModel]:
    """Describe a body whose fields are read loosely: any of them may be of any type."""
    fields: dict[str, Any] = {
        info.alias or name: (
            Any,
            Field(
                ... if info.is_required() else info.default,
                description=info.description,
            ),
        )
        for name, info in model.model_fields.items()
    }
    loose: type[BaseModel] = create_model(model.__name__, **fields)
    loose.__doc__ = f"{model.__doc__} What is not known is ignored."
    return loose


def answer_json(value: object) -> Response:
    """Answer with a value that no cache may keep."""
    return Response(json.dumps(value), media_type=JSON, headers={"cache-control": "no-store"})


def always(value: object) -> Handler:
    """Return a handler that answers with the same value every time."""
    content = json.dumps(value)

    async def answer(_call: Call, _request: Request, _backend: Backend) -> Response:
        return Response(content, media_type=JSON)

    return answer


def get_row(path: str, summary: str, type_: Any, handler: Handler) -> Endpoint:
    """Build the row of something that is read; some clients send a body with GET.

    Args:
        path: of the row.
        summary: one line.
        type_: of the answer.
        handler: of its calls.
    """
    return Endpoint(
        READING_METHODS,
        path,
        summary,
        Answer(summary, (JSON,), type_),
        handler=handler,
        statuses=frozenset({500}),
        at_once=AT_ONCE,
        ignores_body=True,
    )


def command_row(path: str, summary: str, type_: Any, handler: Handler) -> Endpoint:
    """Build the row of a command whose body, if there is one, means nothing; as in `get_row`."""
    body = Body(
        ignore_body, SMALL_BYTES, AnyBody, {}, head_check=HeadCheck.TOLERANT, is_required=False
    )
    return Endpoint(
        ("POST",),
        path,
        summary,
        Answer(summary, (JSON,), type_),
        body=body,
        handler=handler,
        statuses=frozenset({500}),
        at_once=AT_ONCE,
    )
