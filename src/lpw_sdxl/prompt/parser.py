r"""Text to Prompt: the grammar of the `lpw` style, in time linear in the text.

`(a)` multiplies by 1.1, `[a]` by 1/1.1, `(a:1.3)` by 1.3; nested brackets multiply. An open
bracket counts to the end; a closing one without its opening one is text. A backslash takes a
bracket or a backslash literally. It follows diffusers' lpw_stable_diffusion_xl but in three
things: BREAK is a node without weight and not a word, `<lora:name:weight>` is a node and not
text, and a malformed number (`(a:1..2)`), an error there, is text here and its bracket a plain
one, as a number with spaces (`(a : 1.2)`) is in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lpw_sdxl.prompt.brackets import FACTORS, Bracket, OpenBrackets
from lpw_sdxl.prompt.lexer import Token, TokenKind, lex
from lpw_sdxl.prompt.limits import DEFAULT_LIMITS, PromptLimits
from lpw_sdxl.prompt.syntax import (
    Break,
    LoraTag,
    Node,
    Prompt,
    PromptWarning,
    Span,
    WarningKind,
)

_OPENINGS = {")": "(", "]": "["}
_NUMBER_AT_END = re.compile(r":\s*[+-]?[.\d]+\s*\Z")
_NUMBER_REACH = 32  # characters looked back for it: bounds the time of a warning


def parse(text: str, limits: PromptLimits = DEFAULT_LIMITS, *, field: str | None = None) -> Prompt:
    """Parse a prompt.

    Args:
        text: what the user wrote.
        limits: what the prompt may cost.
        field: the request's field that an error names, such as `negative_prompt`.

    Raises:
        InvalidPromptError: a limit is broken or a weight is not finite; the message names the
            limit and the position, never the text.
    """
    limits.check_text(text, field)
    scanner = _Scanner(text, limits, field)
    for token in lex(text):
        scanner.take(token)
    scanner.close_open_brackets()
    nodes = _merge(_weigh(scanner.events))
    return Prompt(text, tuple(_checked(nodes, limits, field)), scanner.warnings())


class _Opened(NamedTuple):
    bracket: Bracket


class _Closed(NamedTuple):
    bracket: Bracket


_Event = Span | Break | LoraTag | _Opened | _Closed


class _Scanner:
    """Pairs brackets; its events are nodes (spans with weight 1 so far) and ends of brackets."""

    def __init__(self, text: str, limits: PromptLimits, field: str | None) -> None:
        self.events: list[_Event] = []
        self._text = text
        self._limits = limits
        self._field = field
        self._open: dict[str, list[Bracket]] = {"(": [], "[": []}
        self._closed_count = 0
        self._seen: dict[WarningKind, PromptWarning] = {}
        self._handlers = {
            TokenKind.TEXT: self._take_text,
            TokenKind.BREAK: self._take_break,
            TokenKind.OPEN: self._take_opening,
            TokenKind.CLOSE: self._take_closing,
            TokenKind.WEIGHT: self._take_weight,
            TokenKind.LORA: self._take_lora,
        }

    def take(self, token: Token) -> None:
        self._handlers[token.kind](token)

    def close_open_brackets(self) -> None:
        # They are left open in the events: what they hold reaches to the end.
        for opening, brackets in self._open.items():
            for bracket in brackets:
                self._warn(WarningKind.UNCLOSED_BRACKET, bracket.position)
                self._settle(bracket, FACTORS[opening])

    def warnings(self) -> tuple[PromptWarning, ...]:
        return tuple(self._seen[kind] for kind in WarningKind if kind in self._seen)

    def _take_text(self, token: Token) -> None:
        if not token.value:
            self._warn(WarningKind.LONE_BACKSLASH, token.start)
        if token.value == "<" and self._text.startswith("<lora:", token.start):
            self._warn(WarningKind.MALFORMED_LORA_TAG, token.start)
        # An empty span stays until neighbours are merged: it keeps them apart, as in lpw.
        self.events.append(Span(token.value, 1.0, token.start, token.end))

    def _take_break(self, token: Token) -> None:
        self.events.append(Break(token.start, token.end))

    def _take_lora(self, token: Token) -> None:
        name, _, weight = token.value.rpartition(":")
        self.events.append(LoraTag(name, float(weight), token.start, token.end))

    def _take_opening(self, token: Token) -> None:
        bracket = Bracket(token.value, token.start)
        self._open[token.value].append(bracket)
        depth = sum(map(len, self._open.values()))
        self._limits.check_depth(depth, token.start, self._field)
        self.events.append(_Opened(bracket))

    def _take_closing(self, token: Token) -> None:
        opening = _OPENINGS[token.value]
        if not self._open[opening]:
            self._take_unmatched(token)
            return
        reach = max(0, token.start - _NUMBER_REACH)
        if _NUMBER_AT_END.search(self._text, reach, token.start):
            self._warn(WarningKind.NUMBER_IS_TEXT, token.start)
        self._close(opening, FACTORS[opening])

    def _take_weight(self, token: Token) -> None:
        if not self._open["("]:
            self._take_unmatched(token)
            return
        try:
            factor = float(token.value)
        except ValueError:
            number_end = token.end - 1
            number = self._text[token.start : number_end]
            self._take_text(Token(TokenKind.TEXT, number, token.start, number_end))
            self._take_closing(Token(TokenKind.CLOSE, ")", number_end, token.end))
            return
        if isinstance(self.events[-1], _Opened):
            self._warn(WarningKind.WEIGHT_WITHOUT_TEXT, token.start)
        self._close("(", factor)

    def _take_unmatched(self, token: Token) -> None:
        self._warn(WarningKind.UNMATCHED_BRACKET, token.end - 1)
        self.events.append(Span(self._text[token.start : token.end], 1.0, token.start, token.end))

    def _close(self, opening: str, factor: float) -> None:
        bracket = self._open[opening].pop()
        self._settle(bracket, factor)
        self.events.append(_Closed(bracket))

    def _settle(self, bracket: Bracket, factor: float) -> None:
        bracket.factor = factor
        bracket.closing_rank = self._closed_count
        self._closed_count += 1

    def _warn(self, kind: WarningKind, position: int) -> None:
        seen = self._seen.get(kind)
        if seen is None:
            self._seen[kind] = PromptWarning(kind, position)
        else:
            self._seen[kind] = PromptWarning(kind, min(seen.position, position), seen.count + 1)


def _weigh(events: Iterable[_Event]) -> Iterator[Node]:
    brackets = OpenBrackets()
    for event in events:
        match event:
            case _Opened(bracket):
                brackets.push(bracket)
            case _Closed(bracket):
                brackets.pop(bracket)
            case Span():
                yield Span(event.text, brackets.weight(), event.start, event.end)
            case _:
                yield event


def _merge(nodes: Iterable[Node]) -> Iterator[Node]:
    """Join neighbouring spans of exactly equal weight, then leave out the empty ones."""
    run: list[Span] = []
    for node in nodes:
        if run and not (isinstance(node, Span) and node.weight == run[0].weight):
            yield from _join(run)
            run = []
        if isinstance(node, Span):
            run.append(node)
        else:
            yield node
    yield from _join(run)


def _join(run: list[Span]) -> Iterator[Span]:
    text = "".join(span.text for span in run)
    if text:
        yield Span(text, run[0].weight, run[0].start, run[-1].end)


def _checked(nodes: Iterable[Node], limits: PromptLimits, field: str | None) -> Iterator[Node]:
    for node in nodes:
        if not isinstance(node, Break):
            limits.check_weight(node.weight, node.start, field)
        yield node
