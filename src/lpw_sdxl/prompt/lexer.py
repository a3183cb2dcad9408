r"""Text to tokens of a style's grammar, in linear time; it knows nothing of nesting or weights.

At each position the first alternative that matches is taken: an escape (such as `\(`), a lone
backslash that is left out, an opening bracket, a weight that closes (`:1.2)`), a closing bracket,
a tag, text. Inside text the word BREAK is a token of its own and eats the white space around it.
Alternatives that a grammar doesn't have are not in its pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import NamedTuple

from lpw_sdxl.prompt.grammar import GRAMMARS, Grammar, PromptStyle
from lpw_sdxl.prompt.lora_tag import TAG

CLOSINGS = {"(": ")", "[": "]"}
OPENINGS = {closing: opening for opening, closing in CLOSINGS.items()}
# White space is stripped by hand: `\s*\bBREAK` takes quadratic time on a long run of blanks.
_BREAK_WORD = re.compile(r"\bBREAK\b")
# `\d` is any decimal digit of Unicode, as in the community pipeline; float() reads them all.
_NUMBER = r"(?P<weight>[+-]?[.\d]++)"


class TokenKind(Enum):
    """The kind of a token, with the meaning of `Token.value`."""

    TEXT = auto()  # the text it stands for: one character for an escape, none for a lone backslash
    BREAK = auto()  # BREAK
    OPEN = auto()  # ( or [
    CLOSE = auto()  # ) or ]
    WEIGHT = auto()  # the number of `:number)`: signs, digits and dots, in any order
    TAG = auto()  # a LoRA's or a hypernetwork's, from `<` to `>`


class Token(NamedTuple):
    """A token with its position in the text, characters."""

    kind: TokenKind
    value: str
    start: int
    end: int


_KINDS = {
    "text": TokenKind.TEXT,
    "escaped": TokenKind.TEXT,
    "backslash": TokenKind.TEXT,
    "open": TokenKind.OPEN,
    "weight": TokenKind.WEIGHT,
    "close": TokenKind.CLOSE,
    "tag": TokenKind.TAG,
}


class Lexer:
    """The splitting of text by one grammar."""

    def __init__(self, grammar: Grammar) -> None:
        self._pattern = re.compile("|".join(_alternatives(grammar, may_hold_tags=True)))
        self._tail_pattern = re.compile("|".join(_alternatives(grammar, may_hold_tags=False)))
        self._has_breaks = grammar.has_breaks

    def lex(self, text: str, *, may_hold_tags: bool = True) -> Iterator[Token]:
        """Split a text into tokens that cover it, but for the white space around BREAK.

        Args:
            text: a prompt, or one of its texts.
            may_hold_tags: whether tags, in a grammar that has them, are not yet taken out.
        """
        matches = self._matches(text) if may_hold_tags else self._tail_pattern.finditer(text)
        for match in matches:
            group = match.lastgroup
            assert group is not None  # every alternative is named
            if group == "text" and self._has_breaks:
                yield from _split_at_breaks(match.group(), match.start())
            else:
                yield Token(_KINDS[group], match[group], match.start(), match.end())

    def _matches(self, text: str) -> Iterator[re.Match[str]]:
        """Yield matches that cover the text.

        Behind the last `>` no tag ends: to look for the end of each that begins there would take
        quadratic time.
        """
        position, last = 0, text.rfind(">")
        if last >= 0:
            for match in self._pattern.finditer(text):
                yield match
                position = match.end()
                if position > last:
                    break
        yield from self._tail_pattern.finditer(text, position)


def _alternatives(grammar: Grammar, *, may_hold_tags: bool) -> Iterator[str]:
    """Yield the pattern's alternatives in their order, each linear in the text that it reads."""
    special = ""  # characters that end a run of text
    if grammar.escapable:
        yield rf"\\(?P<escaped>[{re.escape(grammar.escapable)}])"
        special += "\\"
    if grammar.drops_backslash:
        yield r"\\(?P<backslash>)"  # of no text
    if grammar.factors:
        opening = "".join(grammar.factors)
        closing = "".join(CLOSINGS[bracket] for bracket in opening)
        blank = r"\s*+" if grammar.allows_blanks else ""
        yield rf"(?P<open>[{re.escape(opening)}])"
        yield rf":{blank}{_NUMBER}{blank}\)"
        yield rf"(?P<close>[{re.escape(closing)}])"
        special += opening + closing + ":"
    if grammar.has_lora_tags:
        if may_hold_tags:
            yield rf"(?P<tag>{TAG.pattern})"
        special += "<"
    # A special character that no alternative above matched is text, one at a time.
    yield rf"(?P<text>[^{re.escape(special)}]++|.)" if special else r"(?P<text>(?s:.+))"


def _split_at_breaks(run: str, offset: int) -> Iterator[Token]:
    start = 0
    for match in _BREAK_WORD.finditer(run):
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


LEXERS: Mapping[PromptStyle, Lexer] = {style: Lexer(grammar) for style, grammar in GRAMMARS.items()}
