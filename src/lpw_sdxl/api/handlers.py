"""Calls the endpoints that have a handler of their own; the others go on to BentoML.

It stands among BentoML's own middlewares: its metrics and traces hold for both, and its time limit,
which ends with the first byte of an answer.
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
        call = find_call(scope)  # none for a request of this process to itself
        handler = None if call is None else call.endpoint.handler
        if call is None or handler is None:
            await self._app(scope, receive, send)
            return
        response = await self._answer(call, handler, Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, call: Call, handler: Handler, request: Request) -> Response:
        """Have a handler answer; where it fails, BentoML would keep the client waiting."""
        try:
            return await handler(call, request, self._backend())
        except LpwSdxlError as error:
            return call.endpoint.dialect.response(ErrorAnswer.from_error(error))
        except Exception:
            logger.exception("%s failed", call.endpoint.path)
            return call.endpoint.dialect.response(ErrorAnswer.from_status(500))
