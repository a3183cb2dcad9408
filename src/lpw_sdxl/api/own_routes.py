"""Calls the endpoints that have a handler of their own; the others go on to BentoML.

It stands among BentoML's own middlewares, so that time limits, metrics and traces hold for both.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.asgi import Application, Receive, Scope, Send
from lpw_sdxl.api.endpoints import JSON, Backend, call_of
from lpw_sdxl.api.errors import ErrorAnswer
from lpw_sdxl.errors import LpwSdxlError


class OwnRoutes:
    """Wraps BentoML's routes.

    Args:
        app: BentoML's own.
        backend: gives what handlers answer with; asked at each request, for there is none before
            the service is made.
    """

    def __init__(self, app: Application, backend: Callable[[], Backend]) -> None:
        self._app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        call = call_of(scope) if scope["type"] == "http" else None
        if call is None or call.endpoint.handler is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await call.endpoint.handler(call, Request(scope, receive), self._backend())
        except LpwSdxlError as error:
            answer = ErrorAnswer.from_error(error)
            body = call.endpoint.dialect.body(answer)
            response = Response(body, answer.status, answer.headers, JSON)
        await response(scope, receive, send)
