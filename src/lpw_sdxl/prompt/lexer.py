r"""Text to tokens of the `lpw` grammar, in linear time; it knows nothing of nesting or weights.

At each position the first alternative that matches is taken: an escape (`\(` `\)` `\[` `\]`
`\\`), a lone backslash (left out), an opening bracket, a weight that closes (`:1.2)`), a closing
bracket, a LoRA tag, text. Inside text the word BREAK is a token of its own and eats the white
space around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

# `\d` is any decimal digit of Unicode, as in the community pipeline; float() reads them all.
_TOKEN = re.compile(
    r"""
      \\(?P<escaped>[\\()\[\]])
    | (?P<backslash>\\)
    | (?P<open>[(\[])
    | :(?P<weight>[+-]?[.\d]+)\)
    | (?P<close>[)\]])
    | <lora:(?P<lora>[^<>:\s][^<>:]*:[+-]?(?:\d+\.?\d*|\.\d+))>
    | (?P<text>[^\\()\[\]:<]+|[:<])
    """,
    re.VERBOSE,
)
# White space is stripped by hand: `\s*\bBREAK` takes quadratic time on a long run of blanks.
_BREAK = re.compile(r"\bBREAK\b")


class TokenKind(Enum):
    """What a token is; `Token.value` depends on it."""

    TEXT = auto()  # the text it stands for: one character for an escape, none for a lone backslash
    BREAK = auto()  # BREAK
    OPEN = auto()  # ( or [
    CLOSE = auto()  # ) or ]
    WEIGHT = auto()  # the number of `:number)`: signs, digits and dots, in any order
    LORA = auto()  # name:weight


class Token(NamedTuple):
    """A token with its position in the text, characters."""

    kind: TokenKind
    value: str
    start: int
    end: int


_KINDS = {
    "escaped": TokenKind.TEXT,
    "open": TokenKind.OPEN,
    "weight": TokenKind.WEIGHT,
    "close": TokenKind.CLOSE,
    "lora": TokenKind.LORA,
}


def lex(text: str) -> Iterator[Token]:
    """Split a text into tokens that cover it, but for the white space around BREAK."""
    for match in _TOKEN.finditer(text):
        group = match.lastgroup
        assert group is not None  # every alternative is named
        if group == "text":
            yield from _split_at_breaks(match.group(), match.start())
        elif group == "backslash":
            yield Token(TokenKind.TEXT, "", match.start(), match.end())
        else:
            yield Token(_KINDS[group], match[group], match.start(), match.end())


def _split_at_breaks(run: str, offset: int) -> Iterator[Token]:
    start = 0
    for match in _BREAK.finditer(run):
        part = run[start : match.start()].rstrip()
        if part:
            yield Token(TokenKind.TEXT, part, offset + start, offset + start + len(part))
        yield Token(TokenKind.BREAK, match.group(), offset + match.start(), offset + match.end())
        start = _blank_end(run, match.end())
    if start < len(run):
        yield Token(TokenKind.TEXT, run[start:], offset + start, offset + len(run))


def _blank_end(run: str, start: int) -> int:
    while start < len(run) and run[start].isspace():
        start += 1
    return start
