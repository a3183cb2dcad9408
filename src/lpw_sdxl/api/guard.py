"""The outermost layer of the HTTP border, before BentoML's own.

It bounds the body, takes JSON only, refuses a bad request before anything else sees it, gives every
error the one shape, and writes one log line a request. Pure ASGI; no BentoML, no torch.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from lpw_sdxl.api.errors import ErrorAnswer
from lpw_sdxl.api.head import refusal_of_head
from lpw_sdxl.errors import ClientLeftError, RequestError
from lpw_sdxl.schema import BatchRequest, GenerationRequest

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Validator = Callable[[bytes], object]  # raises RequestError; what it gives is not used

logger = logging.getLogger(__name__)

QUIET_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
BENTOML_PATHS = QUIET_PATHS | {"/", "/docs.json", "/schema.json", "/static_content/…"}
READING_METHODS = frozenset({"GET", "HEAD"})
FIRST_ERROR_STATUS = 400
METHOD_NOT_ALLOWED = 405
REDIRECTS = frozenset({307, 308})  # Starlette's for a slash too many, to whatever Host was sent
LARGEST_ERROR_BYTES = 64 * 1024
_FIELDS = "|".join({*GenerationRequest.model_fields, *BatchRequest.model_fields})
_KNOWN_FIELD = re.compile(rf"(?:{_FIELDS})(?:\.\d+)?(?:\.name|\.weight)?")


class RequestGuard:
    """Wraps an ASGI application.

    Args:
        app: what is guarded.
        validators: for each path that takes JSON, what refuses a bad body by RequestError.
        max_body_bytes: larger bodies are refused while they arrive.
        body_seconds: a body that is not here after so long is refused.
        other_paths: that the application has beside those of `validators`; one that ends with `/…`
            stands for all below it. Any other is a 404 here: BentoML would keep metrics of every
            path that anybody ever tried.
        documents: JSON that is ready, by its path; nothing below is asked for it.
        count_error: hears the code of every error that is answered.
    """

    def __init__(
        self,
        app: Application,
        validators: Mapping[str, Validator],
        max_body_bytes: int,
        *,
        body_seconds: float = 60.0,
        other_paths: frozenset[str] = BENTOML_PATHS,
        documents: Mapping[str, bytes] | None = None,
        count_error: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self._validators = validators
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        self._count_error = count_error or _count_nothing
        self._documents = documents or {}
        self._other_paths = other_paths | self._documents.keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _ShapedAnswer(send, self._count_error)
        started = time.monotonic()
        try:
            if self._is_known(scope["path"]):
                await self._serve(scope, receive, answer)
            else:
                await answer.refuse(ErrorAnswer.from_status(404))
        except Exception:
            logger.exception("the application failed")
            await answer.refuse(ErrorAnswer.from_status(500))
        finally:
            if scope["path"] not in QUIET_PATHS:
                logger.info(
                    "%s %s %s %.0f ms",
                    scope["method"],
                    scope["path"][:64].encode("unicode_escape").decode(),
                    answer.summary,
                    (time.monotonic() - started) * 1000,
                )

    def _is_known(self, path: str) -> bool:
        """Tell whether anything can be at a path."""
        if path in self._validators or path in self._other_paths:
            return True
        return any(
            other.endswith("/…") and path.startswith(other[:-1]) for other in self._other_paths
        )

    async def _serve(self, scope: Scope, receive: Receive, answer: _ShapedAnswer) -> None:
        validator = self._validators.get(scope["path"])
        document = self._documents.get(scope["path"])
        if document is not None and scope["method"] in READING_METHODS:
            await answer.send_json(document)
        elif validator is None or scope["method"] != "POST":
            await self._app(scope, receive, answer.send)
        else:
            await self._serve_json(scope, receive, answer, validator)

    async def _serve_json(
        self, scope: Scope, receive: Receive, answer: _ShapedAnswer, validator: Validator
    ) -> None:
        if (refusal := refusal_of_head(scope)) is not None:
            await answer.refuse(refusal)
            return
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await _read_body(receive, self._max_body_bytes)
        except TimeoutError:
            await answer.refuse(ErrorAnswer.from_status(408))
            return
        except ClientLeftError as error:
            answer.summary = f"{error.status} {error.code}"
            self._count_error(error.code)
            return
        if body is None:
            await answer.refuse(
                ErrorAnswer(
                    413,
                    "body_too_large",
                    f"the body is larger than the {self._max_body_bytes} bytes accepted here",
                )
            )
            return
        try:
            validator(body)
        except RequestError as error:
            await answer.refuse(ErrorAnswer.from_error(error))
            return
        await self._app(scope, _replay(body, receive), answer.send)


def _count_nothing(code: str) -> None:
    """Keep no count."""


async def _read_body(receive: Receive, limit: int) -> bytes | None:
    """Read the whole body, or None as soon as it is over the limit (bytes).

    Raises:
        ClientLeftError: if the client leaves before it is here.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError("the client left before its body was here")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once more, then whatever the connection says (such as its end)."""
    is_given = False

    async def replayed() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


@dataclass
class _ShapedAnswer:
    """Passes an answer on; an error that is not in our shape is put into it first."""

    _send: Send
    _count_error: Callable[[str], None]
    summary: str = "no answer"
    _held: Message | None = None  # the start of an error answer, until its body is here
    _error_body: bytes = b""
    _is_begun: bool = False  # whether anything has been sent

    async def refuse(self, error: ErrorAnswer) -> None:
        """Answer with an error of ours."""
        self.summary = _summary(error.status, error.code, error.field)
        if self._is_begun:
            return  # the client has part of another answer; there is no way back
        self._count_error(error.code)
        await self._send_whole(error.status, error.body(), error.headers)

    async def send_json(self, document: bytes) -> None:
        """Answer with JSON that is ready."""
        self.summary = "200"
        await self._send_whole(200, document, {})

    async def send(self, message: Message) -> None:
        """Take one message of the application's answer."""
        if message["type"] == "http.response.start":
            if message["status"] in REDIRECTS:
                message = {**message, "status": 404}
            self.summary = str(message["status"])
            if message["status"] >= FIRST_ERROR_STATUS:
                self._held = message
                return
        if self._held is None:
            self._is_begun = True
            await self._send(message)
            return
        if len(self._error_body) <= LARGEST_ERROR_BYTES:
            self._error_body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._send_error(self._held)

    async def _send_whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._is_begun = True
        all_headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **headers,
        }
        raw = [(name.encode(), value.encode()) for name, value in all_headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_error(self, start: Message) -> None:
        """Send the held error, as it is if it is ours."""
        ours = _our_error(self._error_body)
        if ours is None:
            error = ErrorAnswer.from_status(start["status"])
            if error.status == METHOD_NOT_ALLOWED:
                error = ErrorAnswer.for_methods(_allowed_methods(start))
            await self.refuse(error)
            return
        self.summary = _summary(start["status"], ours["code"], ours.get("field"))
        self._is_begun = True
        self._count_error(ours["code"])
        await self._send(start)
        await self._send(
            {"type": "http.response.body", "body": self._error_body, "more_body": False}
        )


def _allowed_methods(start: Message) -> str:
    """Read which methods a path takes from a 405; Starlette's static files don't tell it."""
    told = [value.decode() for name, value in start["headers"] if name == b"allow"]
    methods = told[0].split(", ") if told else ["GET", "HEAD"]
    return ", ".join(sorted(methods))  # Starlette keeps a set, whose order changes


def _summary(status: int, code: str, field: str | None) -> str:
    """Write an error for the log; a field that a client made up is not written down."""
    if field is None:
        return f"{status} {code}"
    return f"{status} {code} {field if _KNOWN_FIELD.fullmatch(field) else '(unknown field)'}"


def _our_error(body: bytes) -> Mapping[str, Any] | None:
    """Read an error body if it is already in our shape."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, TypeError, KeyError):
        return None
    return error if isinstance(error, dict) and "code" in error else None
