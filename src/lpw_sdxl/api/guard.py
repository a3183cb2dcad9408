"""The outermost layer of the HTTP border, before BentoML's own.

It asks for a token, bounds headers and body, takes JSON only, refuses pages of strangers and bad
requests before anything else sees them, gives every error the one shape, and writes one log line a
request. Pure ASGI; no BentoML, no torch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from lpw_sdxl.api.asgi import Application, Receive, Scope, Send, header_values
from lpw_sdxl.api.body import read_body, replay, too_large
from lpw_sdxl.api.errors import ErrorAnswer
from lpw_sdxl.api.head import is_small, refuse_announced, refuse_headers
from lpw_sdxl.api.origins import Origins
from lpw_sdxl.api.shaped_answer import ShapedAnswer
from lpw_sdxl.api.tally import Tally
from lpw_sdxl.api.tokens import Tokens
from lpw_sdxl.errors import ClientLeftError, RequestError

Validator = Callable[[bytes], object]  # raises RequestError; what it gives is not used

logger = logging.getLogger(__name__)

PROBES = frozenset({"/livez", "/readyz", "/healthz"})
METRICS = frozenset({"/metrics"})
QUIET_PATHS = PROBES | METRICS
# What BentoML's page of endpoints is made of, by name: of a folder, any name would be a metric.
PAGE_FILES = frozenset(
    f"/static_content/{name}"
    for name in (
        *("swagger-ui.css", "index.css", "favicon-light-32x32.png", "favicon-dark-32x32.png"),
        *("swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "swagger-initializer.js"),
    )
)
BENTOML_PATHS = QUIET_PATHS | {"/", "/docs.json", "/schema.json"} | PAGE_FILES
READING_METHODS = ("GET", "HEAD")


class RequestGuard:
    """Wraps an ASGI application.

    Args:
        app: what is guarded.
        validators: for each path that takes JSON, what refuses a bad body by RequestError.
        body_limits: for the same paths, the largest body, bytes; larger ones are refused unread,
            or, where they don't tell their length, while they arrive.
        body_seconds: a body that is not here after so long is refused.
        other_paths: that the application has beside those of `validators`, to be read. Any other is
            a 404 here: BentoML would keep metrics of every path that anybody ever tried.
        documents: JSON that is ready, by its path; nothing below is asked for it.
        tokens: who may ask; None for anyone.
        open_paths: that need no token.
        origins: whose web pages may ask.
        count_error: hears the code of every error that is answered.
    """

    def __init__(
        self,
        app: Application,
        validators: Mapping[str, Validator],
        body_limits: Mapping[str, int],
        *,
        body_seconds: float = 60.0,
        other_paths: frozenset[str] = BENTOML_PATHS,
        documents: Mapping[str, bytes] | None = None,
        tokens: Tokens | None = None,
        open_paths: frozenset[str] = PROBES,
        origins: Origins | None = None,
        count_error: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self._validators = validators
        self._body_limits = body_limits
        self._body_seconds = body_seconds
        self._documents = documents or {}
        self._other_paths = other_paths | self._documents.keys()
        self._tokens = tokens
        self._open_paths = open_paths
        self._origins = origins or Origins()
        self._count_error = count_error or _count_nothing
        self._strangers = Tally(logger, "%d requests without a valid token, the last from %s")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # nothing here speaks it
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = ShapedAnswer(send, self._count_error, is_closing=not is_small(scope))
        if not self._is_admitted(scope):
            self._strangers.add(_for_log(scope["client"][0] if scope.get("client") else "nowhere"))
            await answer.refuse(_unauthorized())
            return
        started = time.monotonic()
        try:
            await self._serve(scope, receive, answer)
        except Exception:
            logger.exception("the application failed")
            await answer.refuse(ErrorAnswer.from_status(500))
        finally:
            if scope["path"] not in QUIET_PATHS:
                logger.info(
                    "%s %s %s %.0f ms",
                    scope["method"][:16],
                    _for_log(scope["path"]),
                    answer.summary,
                    (time.monotonic() - started) * 1000,
                )

    def _is_admitted(self, scope: Scope) -> bool:
        """Tell whether a request may ask anything at all."""
        if self._tokens is None or scope["path"] in self._open_paths:
            return True
        return self._tokens.allow(header_values(scope, b"authorization"))

    async def _serve(self, scope: Scope, receive: Receive, answer: ShapedAnswer) -> None:
        refusal = self._refuse_unread(scope)
        if refusal is not None:
            await answer.refuse(refusal)
            return
        if scope["path"] in self._documents:
            await answer.send_json(self._documents[scope["path"]])
            return
        validator = self._validators.get(scope["path"])
        if validator is None:
            await self._app(scope, receive, answer.send)
            return
        body = await self._read(scope, receive, answer)
        if body is None:
            return
        try:
            validator(body)
        except RequestError as error:
            await answer.refuse(ErrorAnswer.from_error(error))
            return
        await self._app(scope, replay(body, receive), answer.send)

    async def _read(self, scope: Scope, receive: Receive, answer: ShapedAnswer) -> bytes | None:
        """Read a body; None if it was refused, or nobody is there any more."""
        limit = self._body_limits[scope["path"]]
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await read_body(receive, limit)
        except TimeoutError:
            answer.is_closing = True
            await answer.refuse(ErrorAnswer.from_status(408))
            return None
        except ClientLeftError as error:
            answer.leave(error.status, error.code)
            return None
        if body is None:
            await answer.refuse(too_large(limit))
            return None
        answer.is_closing = False
        return body

    def _refuse_unread(self, scope: Scope) -> ErrorAnswer | None:
        """Refuse what can be told to be wrong without the body."""
        path = scope["path"]
        is_known = path in self._validators or path in self._other_paths
        methods = ("POST",) if path in self._validators else READING_METHODS
        return (
            refuse_headers(scope)
            or (None if is_known else ErrorAnswer.from_status(404))
            or (None if scope["method"] in methods else ErrorAnswer.for_methods(", ".join(methods)))
            or (None if path in PROBES else self._origins.refuse(scope))
            or refuse_announced(scope, self._body_limits.get(path, 0))
        )


def _count_nothing(code: str) -> None:
    """Keep no count."""


def _for_log(text: str) -> str:
    """Bound and escape what a client made up; its address too, which a proxy may only pass on."""
    return text[:64].encode("unicode_escape").decode()


def _unauthorized() -> ErrorAnswer:
    plain = ErrorAnswer.from_status(401)
    return ErrorAnswer(
        plain.status, plain.code, plain.message, headers={"www-authenticate": "Bearer"}
    )
