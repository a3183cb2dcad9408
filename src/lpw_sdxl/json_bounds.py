"""Bounds on a JSON text, counted before anything is made from it.

A parser's time and memory follow the number of values: 16 MB of `{}` become 5.6 million objects,
and the interpreter is held until all are made. Here a text is read token by token, in linear time
and constant memory, and refused at the first thing over its bound. Whether it is valid JSON is
decided by the parser afterwards; what is not valid is only counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.interpreter import let_others_run

# Bytes in one call of a pattern, which holds the interpreter: 64 KiB take some 0.1 ms.
_WINDOW = 64 * 1024
_NO_TOKEN = re.compile(rb'[^"{}\[\],]*+')
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_NO_BLANK = re.compile(rb"[^ \t\r\n]")
_OPENING, _CLOSING = b"{[", b"}]"
_QUOTE, _COMMA, _OBJECT, _LIST = b'",{['
PARSER_DEPTH = 200  # pydantic's parser goes no deeper: what follows is never made into anything
LIST_DEPTH = 2  # of what stands in a list that is a field of the outermost object


JsonText = bytes | memoryview


@dataclass(frozen=True)
class JsonBounds:
    """The largest JSON text that is parsed.

    Attributes:
        values: objects, lists, and what stands in them; a request with all LoRAs has 100 or so.
        name_bytes: of one field's name, as it is written.
        size: bytes of all of it; None where they are bounded already.
    """

    values: int = 1000
    name_bytes: int = 4096
    size: int | None = None


DEFAULT_BOUNDS = JsonBounds()


class TextSpan(NamedTuple):
    """The offsets of a string in a JSON text, without its quotes."""

    start: int
    end: int


@dataclass
class JsonElement:
    """One element of a list in a JSON text.

    Attributes:
        start: offset of its first byte, blanks before it included.
        end: offset after its last one.
        refusal: why it must not be parsed; None if it may be.
    """

    start: int
    end: int
    refusal: InvalidRequestError | None = None


def check_bounds(text: JsonText, bounds: JsonBounds = DEFAULT_BOUNDS) -> None:
    """Refuse a JSON text over its bounds.

    Raises:
        InvalidRequestError: names the bound that was passed.
    """
    for _ in _Scan(text, bounds, "the body").tokens():
        pass


def find_texts(
    text: JsonText, names: Collection[str], bounds: JsonBounds = DEFAULT_BOUNDS
) -> dict[str, TextSpan]:
    """Find the strings in some fields of a JSON object, and check the bounds of all of it.

    Args:
        text: of the object.
        names: of the fields; if one is there twice, the last string counts.
        bounds: of the whole text.

    Returns:
        The string of each field that holds one.

    Raises:
        InvalidRequestError: names the bound that was passed.
    """
    scan = _Scan(text, bounds, "the body")
    found: dict[str, TextSpan] = {}
    for token, position in scan.tokens():
        is_value = token == _QUOTE and scan.last_name is None and scan.stack == b"{"
        if is_value and (name := scan.name) in names:
            found[name] = TextSpan(scan.string_start, position)
    return found


def find_inner_texts(
    text: JsonText, names: Collection[str], bounds: JsonBounds = DEFAULT_BOUNDS
) -> list[TextSpan]:
    """Find the strings that stand anywhere in some fields of a JSON object; names are none.

    Args:
        text: of the object.
        names: of the outermost object's fields.
        bounds: of the whole text.

    Returns:
        The strings in their order.

    Raises:
        InvalidRequestError: names the bound that was passed.
    """
    scan = _Scan(text, bounds, "the body")
    return [
        TextSpan(scan.string_start, position)
        for token, position in scan.tokens()
        if token == _QUOTE and scan.last_name is None and scan.name in names
    ]


def split_list(
    text: JsonText, name: str, bounds: JsonBounds, element_bounds: JsonBounds, noun: str
) -> list[JsonElement]:
    """Find the elements of the list in one field of a JSON object.

    Args:
        text: of the object.
        name: of the field; if it is there twice, the last one counts, as for parsers.
        bounds: of the whole text.
        element_bounds: of each element; one that passes them has a refusal, and no effect on the
            others.
        noun: what an element is, for its refusal.

    Returns:
        The elements in order; none if the field is no list.

    Raises:
        InvalidRequestError: the whole text is over its bounds.
    """
    scan = _Scan(text, bounds, "the body")
    elements: list[JsonElement] = []
    inner: _Count | None = None
    for token, position in scan.tokens():
        depth = len(scan.stack)
        if inner is None:
            if token == _LIST and depth == LIST_DEPTH and scan.name == name:
                elements = []
                inner = _Count(element_bounds, noun, position + 1)
            continue
        is_over = token in _CLOSING and depth < LIST_DEPTH
        if is_over or (token == _COMMA and depth == LIST_DEPTH):
            if not is_over or elements or _NO_BLANK.search(text, inner.start, position):
                inner.end(position)
                elements.append(JsonElement(inner.start, position, inner.refusal))
            inner = None if is_over else _Count(element_bounds, noun, position + 1)
        else:
            inner.add(token, scan.last_name)
    return elements


@dataclass
class _Count:
    """The count of one part of a text so far, and the first bound that it passed."""

    bounds: JsonBounds
    noun: str
    start: int
    values: int = 0
    refusal: InvalidRequestError | None = None

    def add(self, token: int, name: bytes | None) -> None:
        """Count a token; `name` is a field's name, if the token ended one."""
        if self.refusal is not None:
            return
        if token == _COMMA or token in _OPENING:
            self.values += 1
            if self.values > self.bounds.values:
                self._refuse(f"more than {self.bounds.values} values; a request needs far fewer")
        elif token == _QUOTE and name is not None and len(name) > self.bounds.name_bytes:
            self._refuse(f"a field's name of more than {self.bounds.name_bytes} bytes")

    def end(self, position: int) -> None:
        """Check the size of a part that ends at a position."""
        size = self.bounds.size
        if self.refusal is None and size is not None and position - self.start > size:
            self._refuse(f"more than {size} bytes")

    def _refuse(self, what: str) -> None:
        self.refusal = InvalidRequestError(f"{self.noun} has {what}")


@dataclass
class _Scan:
    """The way through a JSON text.

    Attributes:
        stack: the braces and brackets that are open, as bytes.
        last_name: the field's name that the last token ended, without quotes; None if it was no
            name. At most `name_bytes` + 1 bytes of it are kept.
        string_start: offset behind the opening quote of the last string.
    """

    text: JsonText
    bounds: JsonBounds
    noun: str
    stack: bytearray = field(default_factory=bytearray)
    last_name: bytes | None = None
    string_start: int = 0
    _name: bytes = b""  # of the field at depth 1 whose value is being read

    @property
    def name(self) -> str:
        """Return the name of the outermost object's field being read; empty if it is no text."""
        try:
            return str(json.loads(b'"%b"' % self._name))
        except ValueError:
            return ""

    def tokens(self) -> Iterator[tuple[int, int]]:
        """Yield each brace, bracket, comma and string's end with its offset, and check the bounds.

        It ends where the parser does, behind the outermost value or where nesting is too deep.

        Raises:
            InvalidRequestError: a bound was passed.
        """
        count = _Count(self.bounds, self.noun, 0)
        strings = position = 0
        expects_name = False
        while (position := self._skip(_NO_TOKEN, position)) < len(self.text):
            token = self.text[position]
            self.last_name = None
            if token == _QUOTE:
                strings += 1
                self.string_start = start = position + 1
                position = self._end_of_string(start)
                if expects_name:
                    most = start + self.bounds.name_bytes + 1
                    self.last_name = bytes(self.text[start : min(position, most)])
                    if len(self.stack) == 1:
                        self._name = self.last_name
                expects_name = False
            elif token in _OPENING:
                self.stack.append(token)
                expects_name = token == _OBJECT
            elif token in _CLOSING:
                del self.stack[-1:]
                expects_name = False
            else:
                expects_name = self.stack[-1:] == b"{"
            count.add(token, self.last_name)
            if strings > 2 * self.bounds.values + 1:  # with no comma between them
                count.values = self.bounds.values
                count.add(_COMMA, None)
            if count.refusal is not None:
                raise count.refusal
            yield token, position
            if not 0 < len(self.stack) <= PARSER_DEPTH:
                return
            position += 1

    def _skip(self, pattern: re.Pattern[bytes], position: int) -> int:
        """Return the offset of the first byte from a position on that a pattern does not match."""
        while True:
            window = position + _WINDOW
            match = pattern.match(self.text, position, window)
            assert match is not None  # it matches nothing too
            position = match.end()
            if position < window:
                return position
            let_others_run()

    def _end_of_string(self, position: int) -> int:
        """Return the offset of a string's closing quote, or of the text's end."""
        while (position := self._skip(_IN_STRING, position)) < len(self.text):
            if self.text[position] == _QUOTE:
                return position
            position += 2  # a backslash at the end of a window, and what it escapes
        return len(self.text)
