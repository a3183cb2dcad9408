"""An answer on its way out: an error that is not in our one shape is put into it.

It knows nothing of why something was refused, and sums the answer up for the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lpw_sdxl.api.asgi import Message, Send
from lpw_sdxl.api.errors import ErrorAnswer
from lpw_sdxl.schema import BatchRequest, GenerationRequest

FIRST_ERROR_STATUS = 400
REDIRECTS = frozenset({307, 308})  # Starlette's for a slash too many, to whatever Host was sent
LARGEST_ERROR_BYTES = 64 * 1024
_FIELDS = "|".join({*GenerationRequest.model_fields, *BatchRequest.model_fields})
_KNOWN_FIELD = re.compile(rf"(?:{_FIELDS})(?:\.\d+)?(?:\.name|\.weight)?")


@dataclass
class ShapedAnswer:
    """Passes an answer on; an error that is not in our shape is put into it first.

    Attributes:
        summary: status, code and field, for the log.
        is_closing: whether the connection ends with an error, for its request was not read.
    """

    _send: Send
    _count_error: Callable[[str], None]
    summary: str = "no answer"
    is_closing: bool = False
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
        self.is_closing = False
        await self._send_whole(200, document, {})

    def leave(self, status: int, code: str) -> None:
        """Note that nobody is there to be answered."""
        self.summary = _summary(status, code, None)
        self._count_error(code)

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
            **({"connection": "close"} if self.is_closing else {}),
        }
        raw = [(name.encode(), value.encode()) for name, value in all_headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_error(self, start: Message) -> None:
        """Send the held error, as it is if it is ours."""
        ours = _our_error(self._error_body)
        if ours is None:
            await self.refuse(ErrorAnswer.from_status(start["status"]))
            return
        self.summary = _summary(start["status"], ours["code"], ours.get("field"))
        self._is_begun = True
        self._count_error(ours["code"])
        await self._send(start)
        await self._send(
            {"type": "http.response.body", "body": self._error_body, "more_body": False}
        )


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
