"""A middleware that calls the endpoints with a handler of their own, and else BentoML.

It stands behind BentoML's middlewares, so that metrics, traces and the time limit (up to the first
byte of an answer) hold for both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.asgi import Application, Receive, Scope, Send
from lpw_sdxl.api.endpoints import Backend, Call, Handler, find_call
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.errors import LpwSdxlError

logger = logging.getLogger(__name__)


class HandlerMiddleware:
    """An ASGI middleware in front of BentoML's routes.

    Args:
        app: BentoML's routes.
        backend: returns the running service; called for each request, since there is none before
            the service is made.
    """

    def __init__(self, app: Application, backend: Callable[[], Backend]) -> None:
        self._app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        call = find_call(scope)  # None for a request of this process to itself
        handler = None if call is None else call.endpoint.handler
        if call is None or handler is None:
            await self._app(scope, receive, send)
            return
        response = await self._answer(call, handler, Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, call: Call, handler: Handler, request: Request) -> Response:
        """Call a handler; answer for it if it fails, as BentoML would keep the client waiting."""
        try:
            return await handler(call, request, self._backend())
        except LpwSdxlError as error:
            return call.endpoint.dialect.response(ErrorAnswer.from_error(error))
        except Exception:
            logger.exception("%s failed", call.endpoint.path)
            return call.endpoint.dialect.response(ErrorAnswer.from_status(500))
