"""Bodies on their way to parsed requests: read under all limits, parsed in threads, or refused."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial

from lpw_sdxl.api.asgi import Receive, Scope
from lpw_sdxl.api.body import body_too_large, discard_body, read_body
from lpw_sdxl.api.body_memory import BodyMemory, MemoryShare, parsed_size
from lpw_sdxl.api.endpoints import Body, Call, Payload, put_call
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.head import SMALL_BODY_BYTES, content_type
from lpw_sdxl.api.shaped_answer import ShapedAnswer
from lpw_sdxl.errors import ClientLeftError, LpwSdxlError

# Of a refused body, at most so much is read for its client's sake.
DISCARD_S = 5.0
DISCARD_BYTES = 64 * 1024 * 1024  # as large a body as is accepted by default
# Between two reads, for each body that is being discarded: a crowd of them must not fill the loop.
DISCARD_PAUSE_S = 0.001


class BodyIntake:
    """The reading and parsing of all bodies of a server.

    Args:
        memory_bytes: bound on all bodies and what is read from them.
        seconds: time limit for the arrival of a body.

    Attributes:
        memory: the bound; each request takes a share of it.
    """

    def __init__(self, memory_bytes: int, seconds: float) -> None:
        self.memory = BodyMemory(memory_bytes)
        self._seconds = seconds
        self._discards = 0  # under way
        # Threads of their own: in asyncio's pool a body would wait behind prompts and image files.
        # One for small bodies, that wait for no large one; a parser holds the interpreter's lock,
        # so more threads would gain nothing.
        self._small_parser = _Parser("lpw-sdxl-small-parser")
        self._large_parser = _Parser("lpw-sdxl-large-parser")

    async def take(
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
        except LpwSdxlError as error:
            refused = _without_traces(error)
        request: object = None
        if content is not None and refused is None:
            payload = Payload(content, content_type(scope), scope.get("query_string", b""))
            content = None  # the parser alone has it
            request = await self._parse(body, payload, share)
            del payload
            if isinstance(request, LpwSdxlError):
                refused = request
        if refused is not None:
            content = None
            share.set(0)
            await self._refuse(receive, answer, ErrorAnswer.from_error(refused))
            return None
        return put_call(scope, replace(call, memory=share), request)

    async def _parse(self, body: Body, payload: Payload, share: MemoryShare) -> object:
        """Parse a body; return the request, or the error that refuses it.

        A large body counts with what may be made of it only when its turn has come.
        """
        size = len(payload.content)
        parser = self._small_parser if size <= SMALL_BODY_BYTES else self._large_parser
        async with parser.turn:
            try:
                share.set(int(size * (1 + body.parsed_bytes)))
            except LpwSdxlError as error:
                return _without_traces(error)
            parsing = partial(_parse_and_measure, body, payload)
            del payload
            loop = asyncio.get_running_loop()
            request, made = await loop.run_in_executor(parser.thread, parsing)
            del parsing
            share.set(min(made, share.size))
        return request

    async def _read(
        self, receive: Receive, answer: ShapedAnswer, body: Body, share: MemoryShare
    ) -> bytes | memoryview | None:
        """Read a body; return None if it was refused or its client disconnected.

        Raises:
            OverloadedError: if all bodies together leave no room.
        """
        try:
            async with asyncio.timeout(self._seconds):
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
            self._discards += 1
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(DISCARD_S):
                        await discard_body(receive, DISCARD_BYTES, self._discard_pause_s)
            finally:
                self._discards -= 1

        await answer.refuse(error, discard)

    def _discard_pause_s(self) -> float:
        return DISCARD_PAUSE_S * self._discards


class _Parser:
    """A thread that parses one body at a time.

    Attributes:
        thread: the thread.
        turn: held by the request whose body is parsed.
    """

    def __init__(self, name: str) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.turn = asyncio.Lock()


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
