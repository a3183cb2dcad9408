"""The row of `/`: the model and the version, and for a browser the way to the page."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl import __version__
from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.endpoints import READING_METHODS, Answer, Backend, Call, Endpoint
from lpw_sdxl.api.error_answer import ErrorAnswer

PAGE_PATH = "/ui"
_NO_QUALITY = re.compile(r"q=0(\.0{0,3})?")
_HEADERS = {"vary": "accept", "cache-control": "no-cache"}


@dataclass(frozen=True)
class RootAnswer:
    """The served model, and what serves it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    model: Annotated[str, Field(examples=["sdxl:6c5fa69b3e1d"])]
    version: str


def root_endpoint(model_tag: str, *, has_page: bool) -> Endpoint:
    """Build the row.

    Args:
        model_tag: of the served model.
        has_page: whether there is a page at `PAGE_PATH`.
    """
    content = json.dumps(vars(RootAnswer(model_tag, __version__))).encode()

    async def answer(call: Call, request: Request, _backend: Backend) -> Response:
        if request.method != "HEAD":  # a HEAD asks whether the server is there
            if has_page and wants_html(request.headers.get("accept", "")):
                location = {"location": PAGE_PATH.lstrip("/")}  # relative: behind a prefix, too
                return Response(status_code=302, headers=_HEADERS | location)
            if not call.is_authorized:
                refusal = ErrorAnswer.from_status(401)
                headers = {"www-authenticate": "Bearer"}
                return call.endpoint.dialect.response(replace(refusal, headers=headers))
        return Response(content, headers=_HEADERS, media_type=JSON)

    return Endpoint(
        READING_METHODS,
        "/",
        "The served model and the version; a browser is led to the page.",
        Answer("What is served.", (JSON,), RootAnswer),
        handler=answer,
        is_direct=True,
        statuses=frozenset({500}),
        takes_any_origin=True,  # links lead here from anywhere
        needs_engine=False,
        needs_token=False,  # a browser has none yet; the handler asks for it before it says more
        is_documented=True,
    )


def wants_html(accept: str) -> bool:
    """Return whether an Accept header names HTML, as browsers do for an address that is opened."""
    for one in accept.lower().split(","):
        media_type, *parameters = (part.strip().replace(" ", "") for part in one.split(";"))
        if media_type in ("text/html", "application/xhtml+xml"):
            return not any(_NO_QUALITY.fullmatch(part) for part in parameters)
    return False
