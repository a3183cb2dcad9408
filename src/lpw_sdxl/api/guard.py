"""The outermost layer of the HTTP border, before BentoML's own.

It finds the endpoint, checks the token, limits headers and body, refuses pages of other origins and
bad requests before anything below receives them, puts every error into its endpoint's shape, and
writes one log line a request. Pure ASGI; no BentoML, no torch.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from h11 import LocalProtocolError
from starlette.requests import Request

from lpw_sdxl.api.access_tokens import AccessTokens
from lpw_sdxl.api.asgi import Application, Message, Receive, Scope, Send, header_values
from lpw_sdxl.api.body_intake import BodyIntake
from lpw_sdxl.api.connections import is_over_limit, peer
from lpw_sdxl.api.endpoint_table import EndpointTable, PathRows, field_names
from lpw_sdxl.api.endpoints import Backend, Call, Endpoint, find_call
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.head import (
    has_small_body,
    refuse_body_headers,
    refuse_headers,
)
from lpw_sdxl.api.hosts import is_own_host
from lpw_sdxl.api.loop_share import wait_for_share
from lpw_sdxl.api.origins import Origins
from lpw_sdxl.api.shaped_answer import ShapedAnswer
from lpw_sdxl.api.sparse_warning import SparseWarning
from lpw_sdxl.errors import ClientLeftError, LpwSdxlError

logger = logging.getLogger(__name__)


def _count_nothing(code: str) -> None:
    """Ignore an error's code."""


def _no_obstacle() -> None:
    """Know of none."""


def _no_backend() -> Backend:
    raise RuntimeError("a direct endpoint needs a running service")


@dataclass(frozen=True)
class Admission:
    """The access to a server.

    Attributes:
        tokens: one of these is needed; None if no token is.
        origins: web pages of these may send requests.
    """

    tokens: AccessTokens | None = None
    origins: Origins = field(default_factory=Origins)

    def owner(self, scope: Scope) -> str:
        """Return the owner of a request's jobs: its token's digest, else its peer's address."""
        if self.tokens is not None:
            return self.tokens.owner(header_values(scope, b"authorization"))
        return peer(scope)

    def authorizes(self, scope: Scope, *, takes_basic: bool = False) -> bool:
        """Return whether a request has a valid token, or none is needed."""
        if self.tokens is None:
            return True
        return self.tokens.allow(header_values(scope, b"authorization"), takes_basic=takes_basic)

    def sees_jobs(self, scope: Scope) -> bool:
        """Return whether a request may learn of its owner's jobs."""
        return self.tokens is not None or is_own_host(scope, self.origins)


class RequestGuard:
    """An ASGI application that passes only admitted requests on to another one.

    Args:
        app: the guarded application; it is called for the table's endpoints only, and finds the
            call in the scope (`endpoints.find_call`).
        table: every endpoint. Any other path is a 404 here: BentoML would keep metrics of every
            path that a client ever tried.
        admission: tokens and origins.
        count_error: called with the code of every error that is answered.
        backend: returns the running service, for direct endpoints.
        obstacle: returns why no endpoint that needs the engine can be answered now, or None.
        body_memory_bytes: bound on all bodies and what is read from them.
        body_seconds: time limit for the arrival of a body.
    """

    def __init__(
        self,
        app: Application,
        table: EndpointTable,
        admission: Admission = Admission(),
        count_error: Callable[[str], None] = _count_nothing,
        *,
        backend: Callable[[], Backend] = _no_backend,
        obstacle: Callable[[], LpwSdxlError | None] = _no_obstacle,
        body_memory_bytes: int = 512 * 1024 * 1024,
        body_seconds: float = 60.0,
    ) -> None:
        self._app = app
        self._table = table
        self._admission = admission
        self._count_error = count_error
        self._backend = backend
        self._obstacle = obstacle
        self._turns = {
            (row.path, row.methods): asyncio.Semaphore(row.at_once)
            for row in table
            if row.at_once is not None
        }
        self._bodies = BodyIntake(body_memory_bytes, body_seconds)
        types = {row.body.type for row in table if row.body and row.body.type}
        self._known_fields = field_names(types)
        self._unauthorized = SparseWarning(
            logger, "%d requests without a valid token, the last from %s"
        )

    @property
    def body_bytes(self) -> int:
        """Return the bytes that count against the bound on bodies."""
        return self._bodies.memory.used

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # no endpoint has WebSockets
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = self._table.find(scope["path"])
        endpoint = None if found is None else found.by_method.get(scope["method"], found.first)
        answer = ShapedAnswer(
            send,
            self._count_error,
            self._known_fields,
            self._table.dialect_at(scope["path"]) if endpoint is None else endpoint.dialect,
            is_closing=not has_small_body(scope),
            request_id=uuid.uuid4().hex,
        )
        if not self._is_admitted(scope, endpoint):
            self._unauthorized.add(
                _for_log(scope["client"][0] if scope.get("client") else "nowhere")
            )
            await answer.refuse(_unauthorized())
            return
        started = time.monotonic()
        is_quiet = endpoint is not None and endpoint.is_quiet
        try:
            if is_over_limit(scope) and not is_quiet:
                answer.is_closing = True  # its connection is one too many, too
                await answer.refuse(ErrorAnswer.from_status(429))
                return
            if not is_quiet:
                await wait_for_share()
            await self._serve(scope, receive, answer, found)
        except LocalProtocolError:  # the client broke off, or sent what is no HTTP: no answer goes
            answer.note_disconnect(ClientLeftError.status, ClientLeftError.code)
        except Exception:
            logger.exception("the application failed")
            await answer.refuse(ErrorAnswer.from_status(500))
        finally:
            if not is_quiet:
                logger.info(
                    "%s %s %s %.0f ms %s",
                    scope["method"][:16],
                    _for_log(scope["path"] if endpoint is None else endpoint.path),
                    answer.summary,
                    (time.monotonic() - started) * 1000,
                    answer.request_id,
                )

    def _is_admitted(self, scope: Scope, endpoint: Endpoint | None) -> bool:
        """Return whether a request has a valid token or needs none."""
        if endpoint is not None and not endpoint.needs_token:
            return True
        takes_basic = endpoint is not None and endpoint.takes_basic
        return self._admission.authorizes(scope, takes_basic=takes_basic)

    async def _serve(
        self, scope: Scope, receive: Receive, answer: ShapedAnswer, found: PathRows | None
    ) -> None:
        judged = self._judge(scope, found, answer.request_id)
        if isinstance(judged, ErrorAnswer):
            await answer.refuse(judged)
            return
        with self._bodies.memory.share() as share:
            admitted = await self._bodies.take(scope, receive, answer, judged, share)
            if admitted is None:
                return
            call = find_call(admitted) or judged
            answer.request_id = call.request_id
            await self._answer(call, admitted, receive, answer)

    async def _answer(
        self, call: Call, scope: Scope, receive: Receive, answer: ShapedAnswer
    ) -> None:
        """Answer a call; where only so many are processed at once, in a turn until it begins."""
        endpoint = call.endpoint
        async with AsyncExitStack() as turn:
            if (turns := self._turns.get((endpoint.path, endpoint.methods))) is not None:
                await turn.enter_async_context(turns)

            async def send(message: Message) -> None:
                await turn.aclose()  # what follows waits for the client only
                await answer.send(message)

            if endpoint.handler is not None and endpoint.is_direct:
                response = await endpoint.handler(call, Request(scope), self._backend())
                await response(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    def _judge(self, scope: Scope, found: PathRows | None, request_id: str) -> Call | ErrorAnswer:
        """Find the call, or refuse a request that is wrong by its head alone."""
        refusal = refuse_headers(scope)
        if refusal is not None:
            return refusal
        if found is None:
            return ErrorAnswer.from_status(404)
        endpoint = found.by_method.get(scope["method"])
        if endpoint is None:
            return ErrorAnswer.for_methods(found.allow)
        refusal = None
        if not endpoint.takes_any_origin:
            takes_links = endpoint.takes_links
            refusal = self._admission.origins.refuse(scope, takes_links=takes_links)
        if refusal is None and endpoint.needs_engine and (obstacle := self._obstacle()) is not None:
            return ErrorAnswer.from_error(obstacle)
        if not (endpoint.ignores_body and has_small_body(scope)):
            refusal = refusal or refuse_body_headers(scope, endpoint.body)
        admission = self._admission
        return refusal or Call(
            endpoint,
            found.parameters,
            request_id,
            admission.owner(scope) if endpoint.needs_token else "",
            admission.sees_jobs(scope),
            is_authorized=endpoint.needs_token or admission.authorizes(scope),
        )


def _for_log(text: str) -> str:
    """Shorten and escape client input; its address too, which a proxy may copy from a header."""
    return text[:64].encode("unicode_escape").decode()


def _unauthorized() -> ErrorAnswer:
    plain = ErrorAnswer.from_status(401)
    return ErrorAnswer(
        plain.status, plain.code, plain.message, headers={"www-authenticate": "Bearer"}
    )
