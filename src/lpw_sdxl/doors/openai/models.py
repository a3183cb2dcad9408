"""The list of models, which has one: that which is served."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, with_config
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.endpoints import Backend, Call
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.doors.openai.errors import OPENAI

OWNER = "lpw-sdxl"


@with_config(extra="forbid")
class ModelAnswer(TypedDict):
    """A model."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(ge=0, description="Of its import: Unix time, seconds.")]
    owned_by: str


@with_config(extra="forbid")
class ModelList(TypedDict):
    """All models."""

    object: Literal["list"]
    data: list[ModelAnswer]


@dataclass(frozen=True)
class ServedModel:
    """The served model, as clients find it.

    Attributes:
        name: in the store.
        tag: name and version.
        created: Unix time of its import, seconds.
    """

    name: str
    tag: str
    created: int

    async def answer_list(self, _call: Call, _request: Request, _backend: Backend) -> Response:
        """Answer with all models."""
        answer: ModelList = {"object": "list", "data": [self._describe(self.name)]}
        return Response(json.dumps(answer), media_type=JSON)

    async def answer_one(self, call: Call, _request: Request, _backend: Backend) -> Response:
        """Answer with the model of a name, by its name or its tag."""
        asked = call.parameters["id"]
        if asked not in (self.name, self.tag):
            message = f"this server has no model of this name; it serves {self.name}"
            return OPENAI.response(ErrorAnswer(404, "not_found", message))
        return Response(json.dumps(self._describe(asked)), media_type=JSON)

    def _describe(self, name: str) -> ModelAnswer:
        return {"id": name, "object": "model", "created": self.created, "owned_by": OWNER}
