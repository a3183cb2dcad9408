r"""Edits and alternations in a text, as AUTOMATIC1111's grammar has them; it knows no steps.

`[before:after:when]`, `[after:when]` and `[before::when]` are edits, `[a|b|c]` is an alternation.
Both may be nested and hold brackets of weights, such as `(a:1.2)`, `(a)` and `[a]`, if each of
these is whole: a bracket around one that is not whole is text, and its own whole ones still count.
A backslash makes the next character text. A `|` outside an alternation, and a backslash at the end
of the text or of a line, have no place in the grammar: then the text is plain as a whole, whatever
else is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from lpw_sdxl.prompt.lexer import OPENINGS

_MARK = re.compile(r"\\.|[\\()\[\]:|]")
_WHEN = re.compile(r"\s*+([+-]?(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+)\s*+")


class Construct(NamedTuple):
    """An edit or an alternation.

    Attributes:
        borders: its opening bracket, the colons or bars that divide it, and its closing bracket,
            characters.
        when: the number of an edit, which is what its last two borders enclose; None for an
            alternation.
    """

    borders: tuple[int, ...]
    when: str | None


@dataclass(slots=True)
class _Bracket:
    """An open bracket and what divides it, so far."""

    kind: str
    position: int
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)


def find_constructs(text: str) -> list[Construct] | None:
    """Find the edits and alternations of a text, in time linear in it.

    Returns:
        Them, in the order of their closing brackets; None if the text is plain as a whole.
    """
    found: list[Construct] = []
    around: list[_Bracket] = []
    for match in _MARK.finditer(text):
        mark, position = match.group(), match.start()
        if mark in ("(", "["):
            around.append(_Bracket(mark, position))
        elif mark in OPENINGS:
            if not _is_whole(around, OPENINGS[mark], text, position):
                # Then no bracket around it is whole either.
                if any(bracket.bars for bracket in around):
                    return None
                around.clear()
            elif (construct := _read(around.pop(), text, position)) is not None:
                found.append(construct)
        elif mark == ":" and around:
            around[-1].colons.append(position)
        elif mark == "|" and around:
            around[-1].bars.append(position)
        elif mark in ("|", "\\"):
            return None
    return None if any(bracket.bars for bracket in around) else found


def _is_whole(around: list[_Bracket], opening: str, text: str, closing: int) -> bool:
    """Return whether the innermost bracket is closed here and holds what the grammar allows."""
    if not around or around[-1].kind != opening:
        return False
    bracket = around[-1]
    if opening == "(":
        return len(bracket.colons) <= 1 and not bracket.bars
    if not bracket.colons:
        return True
    is_edit = len(bracket.colons) <= 2 and not bracket.bars
    return is_edit and _WHEN.fullmatch(text, bracket.colons[-1] + 1, closing) is not None


def _read(bracket: _Bracket, text: str, closing: int) -> Construct | None:
    """Read a whole bracket; one of weights is no construct."""
    if bracket.kind == "(" or not (bracket.colons or bracket.bars):
        return None
    borders = (bracket.position, *bracket.bars, *bracket.colons, closing)
    if bracket.bars:
        return Construct(borders, None)
    when = _WHEN.fullmatch(text, bracket.colons[-1] + 1, closing)
    assert when is not None
    return Construct(borders, when[1])
