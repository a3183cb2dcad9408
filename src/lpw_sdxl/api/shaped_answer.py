"""An answer on its way out: an error that is not in its endpoint's shape is put into it.

It knows nothing of why something was refused, and sums the answer up for the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lpw_sdxl.api.asgi import Message, Send
from lpw_sdxl.api.dialect import NATIVE, ErrorDialect, ErrorNote
from lpw_sdxl.api.error_answer import ErrorAnswer

FIRST_ERROR_STATUS = 400
REDIRECTS = frozenset({307, 308})  # Starlette's for a slash too many, to whatever Host was sent
LARGEST_ERROR_BYTES = 64 * 1024
_PLACE = re.compile("[0-9]{1,4}")  # in a list


@dataclass
class ShapedAnswer:
    """Passes an answer on; an error that is not in its endpoint's shape is put into it first.

    Attributes:
        dialect: the shape.
        summary: status, code and field, for the log.
        is_closing: whether the connection ends with an error, for its request was not read.
    """

    _send: Send
    _count_error: Callable[[str], None]
    _known_fields: Collection[str] = ()
    dialect: ErrorDialect = NATIVE
    summary: str = "no answer"
    is_closing: bool = False
    _held: Message | None = None  # the start of an error answer, until its body is here
    _error_body: bytes = b""
    _is_begun: bool = False  # whether anything has been sent

    async def refuse(self, error: ErrorAnswer) -> None:
        """Answer with an error."""
        response = self.dialect.response(error)
        self.summary = self._summary(response.status_code, ErrorNote(error.code, error.field))
        self._count_error(error.code)
        if self._is_begun:
            return  # the client has part of another answer; there is no way back
        self._is_begun = True
        if self.is_closing:
            response.headers["connection"] = "close"
        start = {"status": response.status_code, "headers": response.raw_headers}
        await self._send({"type": "http.response.start", **start})
        await self._send({"type": "http.response.body", "body": response.body, "more_body": False})

    def leave(self, status: int, code: str) -> None:
        """Note that nobody is there to be answered."""
        self.summary = self._summary(status, ErrorNote(code, None))
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

    async def _send_error(self, start: Message) -> None:
        """Send the held error, as it is if it is in its endpoint's shape."""
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
        """Read the held body if it is in the endpoint's shape."""
        try:
            return self.dialect.read(json.loads(self._error_body))
        except ValueError:
            return None

    def _summary(self, status: int, note: ErrorNote) -> str:
        """Write an error for the log; a field that a client made up is not written down."""
        if note.field is None:
            return f"{status} {note.code}"
        first, *inner = note.field.split(".")
        is_known = first in self._known_fields and all(
            part in self._known_fields or _PLACE.fullmatch(part) for part in inner
        )
        return f"{status} {note.code} {note.field if is_known else '(unknown field)'}"
