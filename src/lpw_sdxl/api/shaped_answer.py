"""The answer to one request: its errors are put into the endpoint's shape, and it is summed up.

It knows nothing of the reasons of a refusal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from lpw_sdxl.api.asgi import Message, Send
from lpw_sdxl.api.dialect import NATIVE, ErrorDialect, ErrorNote
from lpw_sdxl.api.error_answer import ErrorAnswer

FIRST_ERROR_STATUS = 400
REDIRECTS = frozenset({307, 308})  # Starlette's for a slash too many, to the Host that was sent
LATE_CODE = "lpw_sdxl.late_code"  # of the last message of a stream: its last error's code
LARGEST_ERROR_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024  # as much as the server keeps unsent before it waits for the client
_INDEX = re.compile("[0-9]{1,4}")  # in a list


@dataclass
class ShapedAnswer:
    """A sender of one answer that first puts an error into its endpoint's shape.

    Attributes:
        dialect: the shape.
        summary: status, code and field, for the log.
        is_closing: whether an error closes the connection, because its request was not read.
        request_id: in the header `x-request-id` of every answer; empty for no header.
    """

    _send: Send
    _count_error: Callable[[str], None]
    _known_fields: Collection[str] = ()
    dialect: ErrorDialect = NATIVE
    summary: str = "no answer"
    is_closing: bool = False
    request_id: str = ""
    _held: Message | None = None  # the start of an error answer, until its body is complete
    _error_body: bytes = b""
    _is_begun: bool = False  # whether anything has been sent

    async def refuse(
        self, error: ErrorAnswer, before_the_end: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Answer with an error.

        Args:
            error: of the request.
            before_the_end: awaited when all of the answer is sent and the connection still open.
        """
        response = self.dialect.response(error)
        self.summary = self._summary(response.status_code, ErrorNote(error.code, error.field))
        self._count_error(error.code)
        if self._is_begun:
            return  # the client has part of another answer, which can't be undone
        self._is_begun = True
        if self.is_closing:
            response.headers["connection"] = "close"
        start = {
            "status": response.status_code,
            "headers": [*response.raw_headers, *self._own_headers],
        }
        await self._send({"type": "http.response.start", **start})
        body = response.body
        if before_the_end is not None:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await before_the_end()
            body = b""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def note_disconnect(self, status: int, code: str) -> None:
        """Record, for log and metrics, that the client disconnected before its answer."""
        self.summary = self._summary(status, ErrorNote(code, None))
        self._count_error(code)

    async def send(self, message: Message) -> None:
        """Process one message of the application's answer."""
        if message["type"] == "http.response.start":
            if message["status"] in REDIRECTS:
                message = {**message, "status": 404}
            message = {**message, "headers": [*message["headers"], *self._own_headers]}
            self.summary = str(message["status"])
            if message["status"] >= FIRST_ERROR_STATUS:
                self._held = message
                return
        if LATE_CODE in message:
            message = {**message}
            self.summary = f"{self.summary} {message.pop(LATE_CODE)}"
        if self._held is None:
            self._is_begun = True
            await self._send_in_pieces(message)
            return
        if len(self._error_body) <= LARGEST_ERROR_BYTES:
            self._error_body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._send_error(self._held)

    @property
    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"x-request-id", self.request_id.encode())] if self.request_id else []

    async def _send_in_pieces(self, message: Message) -> None:
        """Send a message; a large body so that its client has nearly all of it when this returns.

        In one piece it would wait in the server's buffer, and the request would be over.
        """
        body = message.get("body", b"")
        if len(body) <= PIECE_BYTES:
            await self._send(message)
            return
        rest = memoryview(body)
        while len(rest) > PIECE_BYTES:
            await self._send({**message, "body": rest[:PIECE_BYTES], "more_body": True})
            rest = rest[PIECE_BYTES:]
        await self._send({**message, "body": rest})

    async def _send_error(self, start: Message) -> None:
        """Send the held error: unchanged if it has the endpoint's shape, else put into it."""
        note = self._read_error()
        if note is None:
            await self.refuse(ErrorAnswer.from_status(start["status"]))
            return
        self.summary = self._summary(start["status"], note)
        self._is_begun = True
        self._count_error(note.code)
        await self._send(start)
        await self._send(
            {"type": "http.response.body", "body": self._error_body, "more_body": False}
        )

    def _read_error(self) -> ErrorNote | None:
        """Read code and field of the held error; None if it has another shape."""
        try:
            return self.dialect.read(json.loads(self._error_body))
        except ValueError:
            return None

    def _summary(self, status: int, note: ErrorNote) -> str:
        """Format an error for the log; a field name that a client made up is left out."""
        if note.field is None:
            return f"{status} {note.code}"
        first, *inner = note.field.split(".")
        is_known = first in self._known_fields and all(
            part in self._known_fields or _INDEX.fullmatch(part) for part in inner
        )
        return f"{status} {note.code} {note.field if is_known else '(unknown field)'}"
