"""Events of a stream for clients in Python: pieces of a network connection become whole events.

It imports nothing but the standard library. BentoML's clients yield what the network brings, which
may be half an event or three of them:

    with bentoml.SyncHTTPClient("http://localhost:3000") as client:
        for event in events(client.generate_stream(prompt="a red circle")):
            print(event.name, event.data)
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, overload

_LINE_END = re.compile(rb"\r\n|\r|\n")

Piece = bytes | str


@dataclass(frozen=True)
class Event:
    """One event of a stream.

    Attributes:
        name: such as `progress`.
        data: what its JSON holds.
    """

    name: str
    data: Any


@overload
def events(pieces: AsyncIterable[Piece]) -> AsyncIterator[Event]: ...
@overload
def events(pieces: Iterable[Piece]) -> Iterator[Event]: ...
def events(
    pieces: Iterable[Piece] | AsyncIterable[Piece],
) -> Iterator[Event] | AsyncIterator[Event]:
    """Yield the events of a stream, each as soon as its last piece is there.

    Comments are left out, and so is an event that the stream's end cuts off.

    Args:
        pieces: of the body, as bytes or text, cut anywhere; also from an async iterable, and then
            the events come from one.

    Raises:
        TypeError: if they are one whole text, of which every byte or letter would be a piece.
    """
    if isinstance(pieces, bytes | bytearray | memoryview | str):
        name = type(pieces).__name__
        raise TypeError(f"the pieces are one {name}; a list of it would be right")
    if isinstance(pieces, AsyncIterable):
        return _events_async(pieces)
    return _events(pieces)


def _events(pieces: Iterable[Piece]) -> Iterator[Event]:
    parser = EventParser()
    for piece in pieces:
        yield from parser.feed(piece)


async def _events_async(pieces: AsyncIterable[Piece]) -> AsyncIterator[Event]:
    parser = EventParser()
    async for piece in pieces:
        for event in parser.feed(piece):
            yield event


class EventParser:
    """A parser of server-sent events (HTML Living Standard, 9.2.6) whose data is JSON."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of the line that is not complete
        self._ends_in_return = False  # a line end may be cut between its two bytes
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, piece: Piece) -> Iterator[Event]:
        """Take the next piece of the stream, and yield the events that it completes."""
        content = piece.encode() if isinstance(piece, str) else bytes(piece)
        if not content:
            return
        if self._ends_in_return and content.startswith(b"\n"):
            content = content[1:]
            self._ends_in_return = False
            if not content:
                return
        self._ends_in_return = content.endswith(b"\r")
        first, *others = _LINE_END.split(content)
        self._rest.append(first)
        for line in others:
            event = self._end_line(b"".join(self._rest))
            if event is not None:
                yield event
            self._rest = [line]

    def _end_line(self, line: bytes) -> Event | None:
        """Read one line; return the event that it ends, if it does."""
        if not line:
            name, data = self._name or "message", b"\n".join(self._data)
            had_data, self._name, self._data = bool(self._data), "", []
            return Event(name, json.loads(data)) if had_data else None
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value.decode()
        elif field == b"data":
            self._data.append(value)
        return None
