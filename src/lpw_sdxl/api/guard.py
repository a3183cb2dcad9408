"""The outermost layer of the HTTP border, before BentoML's own.

It finds the endpoint, checks the token, limits headers and body, refuses pages of other origins and
bad requests before anything below receives them, puts every error into its endpoint's shape, and
writes one log line a request. Pure ASGI; no BentoML, no torch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial

from starlette.requests import Request

from lpw_sdxl.api.access_tokens import AccessTokens
from lpw_sdxl.api.asgi import Application, Receive, Scope, Send, header_values
from lpw_sdxl.api.body import body_too_large, discard_body, read_body
from lpw_sdxl.api.body_memory import PARSED_BYTES, BodyMemory, MemoryShare, parsed_size
from lpw_sdxl.api.connections import is_over_limit
from lpw_sdxl.api.endpoints import (
    Backend,
    Body,
    Call,
    Endpoint,
    EndpointTable,
    PathRows,
    Payload,
    field_names,
    put_call,
)
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.head import (
    SMALL_BODY_BYTES,
    content_type,
    has_small_body,
    refuse_body_headers,
    refuse_headers,
)
from lpw_sdxl.api.loop_share import wait_for_share
from lpw_sdxl.api.origins import Origins
from lpw_sdxl.api.shaped_answer import ShapedAnswer
from lpw_sdxl.api.sparse_warning import SparseWarning
from lpw_sdxl.errors import ClientLeftError, LpwSdxlError

logger = logging.getLogger(__name__)


# Of a refused body, at most so much is read for its client's sake.
DISCARD_S = 5.0
DISCARD_BYTES = 16 * 1024 * 1024


def _count_nothing(code: str) -> None:
    """Ignore an error's code."""


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
        body_memory_bytes: int = 512 * 1024 * 1024,
        body_seconds: float = 60.0,
    ) -> None:
        self._app = app
        self._table = table
        self._admission = admission
        self._count_error = count_error
        self._body_seconds = body_seconds
        self._backend = backend
        self._turns = {
            row.path: asyncio.Semaphore(row.at_once) for row in table if row.at_once is not None
        }
        self._memory = BodyMemory(body_memory_bytes)
        types = {row.body.type for row in table if row.body and row.body.type}
        self._known_fields = field_names(types)
        # Threads of their own: in asyncio's pool a body would wait behind prompts and image files.
        # One for small bodies, that wait for no large one; a parser holds the interpreter's lock,
        # so more threads would gain nothing.
        self._small_parser = ThreadPoolExecutor(1, thread_name_prefix="lpw-sdxl-small-parser")
        self._large_parser = ThreadPoolExecutor(1, thread_name_prefix="lpw-sdxl-large-parser")
        self._unauthorized = SparseWarning(
            logger, "%d requests without a valid token, the last from %s"
        )

    @property
    def body_bytes(self) -> int:
        """Return the bytes that count against the bound on bodies."""
        return self._memory.used

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
        except Exception:
            logger.exception("the application failed")
            await answer.refuse(ErrorAnswer.from_status(500))
        finally:
            if not is_quiet:
                logger.info(
                    "%s %s %s %.0f ms",
                    scope["method"][:16],
                    _for_log(scope["path"] if endpoint is None else endpoint.path),
                    answer.summary,
                    (time.monotonic() - started) * 1000,
                )

    def _is_admitted(self, scope: Scope, endpoint: Endpoint | None) -> bool:
        """Return whether a request has a valid token or needs none."""
        tokens = self._admission.tokens
        if tokens is None or (endpoint is not None and not endpoint.needs_token):
            return True
        return tokens.allow(header_values(scope, b"authorization"))

    async def _serve(
        self, scope: Scope, receive: Receive, answer: ShapedAnswer, found: PathRows | None
    ) -> None:
        judged = self._judge(scope, found)
        if isinstance(judged, ErrorAnswer):
            await answer.refuse(judged)
            return
        with self._memory.share() as share:
            admitted = await self._parse(scope, receive, answer, judged, share)
            if admitted is None:
                return
            endpoint = judged.endpoint
            async with self._turns.get(endpoint.path, nullcontext()):
                if endpoint.handler is not None and endpoint.is_direct:
                    request = Request(admitted)
                    response = await endpoint.handler(judged, request, self._backend())
                    await response(admitted, receive, answer.send)
                else:
                    await self._app(admitted, receive, answer.send)

    async def _parse(
        self,
        scope: Scope,
        receive: Receive,
        answer: ShapedAnswer,
        call: Call,
        share: MemoryShare,
    ) -> Scope | None:
        """Read and parse a body; return None if it was refused or its client disconnected.

        Only the scope holds the parsed request, so that it is freed by the endpoint that takes it.
        """
        body = call.endpoint.body
        if body is None:
            return put_call(scope, call, None)
        refused: LpwSdxlError | None = None
        content: bytes | memoryview | None = None
        try:
            content = await self._read(receive, answer, body, share)
            if content is None:
                return None
            answer.is_closing = False
            share.set(len(content) * (1 + PARSED_BYTES))
        except LpwSdxlError as error:
            refused = _without_traces(error)
        request: object = None
        if content is not None and refused is None:
            is_small = len(content) <= SMALL_BODY_BYTES
            payload = Payload(content, content_type(scope), scope.get("query_string", b""))
            parsing = partial(_parse_and_measure, body, payload)
            content = payload = None  # type: ignore[assignment] # the parser alone has them
            parser = self._small_parser if is_small else self._large_parser
            loop = asyncio.get_running_loop()
            request, size = await loop.run_in_executor(parser, parsing)
            del parsing
            share.set(min(size, share.size))
            if isinstance(request, LpwSdxlError):
                refused = request
        if refused is not None:
            content = None
            share.set(0)
            await self._refuse(receive, answer, ErrorAnswer.from_error(refused))
            return None
        return put_call(scope, call, request)

    def _judge(self, scope: Scope, found: PathRows | None) -> Call | ErrorAnswer:
        """Find the call, or refuse a request that is wrong by its head alone."""
        refusal = refuse_headers(scope)
        if refusal is not None:
            return refusal
        if found is None:
            return ErrorAnswer.from_status(404)
        endpoint = found.by_method.get(scope["method"])
        if endpoint is None:
            return ErrorAnswer.for_methods(found.allow)
        refusal = None if endpoint.takes_any_origin else self._admission.origins.refuse(scope)
        refusal = refusal or refuse_body_headers(scope, endpoint.body)
        return refusal or Call(endpoint, found.parameters)

    async def _read(
        self, receive: Receive, answer: ShapedAnswer, body: Body, share: MemoryShare
    ) -> bytes | memoryview | None:
        """Read a body; return None if it was refused or its client disconnected.

        Raises:
            OverloadedError: if all bodies together leave no room.
        """
        try:
            async with asyncio.timeout(self._body_seconds):
                content = await read_body(receive, body.limit, share)
        except TimeoutError:
            answer.is_closing = True
            await answer.refuse(ErrorAnswer.from_status(408))
            return None
        except ClientLeftError as error:
            answer.note_disconnect(error.status, error.code)
            return None
        if content is None:
            await answer.refuse(body_too_large(body.limit))
        return content

    async def _refuse(self, receive: Receive, answer: ShapedAnswer, error: ErrorAnswer) -> None:
        """Refuse a request; if its body was not read, let the client send the rest of it first."""
        if not answer.is_closing:
            await answer.refuse(error)
            return

        async def discard() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(DISCARD_S):
                    await discard_body(receive, DISCARD_BYTES)

        await answer.refuse(error, discard)


def _parse_and_measure(body: Body, payload: Payload) -> tuple[object, int]:
    """Parse a body; return the request, or the error that refuses it, and its size, bytes."""
    try:
        request = body.parse(payload)
    except LpwSdxlError as error:
        return _without_traces(error), 0
    return request, parsed_size(request)


def _without_traces(error: LpwSdxlError) -> LpwSdxlError:
    """Return an error without the frames in which it was raised: they hold the whole body."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _for_log(text: str) -> str:
    """Shorten and escape client input; its address too, which a proxy may copy from a header."""
    return text[:64].encode("unicode_escape").decode()


def _unauthorized() -> ErrorAnswer:
    plain = ErrorAnswer.from_status(401)
    return ErrorAnswer(
        plain.status, plain.code, plain.message, headers={"www-authenticate": "Bearer"}
    )
