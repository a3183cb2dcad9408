"""Tokens to events: brackets are paired and have factors; texts have no weights yet."""

from __future__ import annotations

from collections import deque

from lpw_sdxl.prompt.brackets import Bracket
from lpw_sdxl.prompt.grammar import Grammar
from lpw_sdxl.prompt.lexer import OPENINGS, Token, TokenKind
from lpw_sdxl.prompt.limits import PromptLimits
from lpw_sdxl.prompt.lora_tag import TAG_BEGINNING, read_tag
from lpw_sdxl.prompt.suspicion import breaks_in_vain, ends_in_number, is_tag
from lpw_sdxl.prompt.syntax import Break, LoraTag, RefusedTag
from lpw_sdxl.prompt.warning import WarningKind, WarningTally

Event = Token | Break | LoraTag | RefusedTag | Bracket
"""Nodes in their order, texts still as tokens; a bracket where it opens and again where it closes.

A bracket that is never closed occurs once.
"""


class Scanner:
    """A pass over the tokens of one text, which pairs brackets and makes nodes."""

    def __init__(
        self,
        text: str,
        grammar: Grammar,
        limits: PromptLimits,
        tally: WarningTally,
        field: str | None,
    ) -> None:
        self.events: deque[Event] = deque()
        self._text = text
        self._grammar = grammar
        self._limits = limits
        self._tally = tally
        self._field = field
        self._open: dict[str, list[Bracket]] = {opening: [] for opening in grammar.factors}
        self._closed_count = 0
        self._handlers = {
            TokenKind.TEXT: self._take_text,
            TokenKind.BREAK: self._take_break,
            TokenKind.OPEN: self._take_opening,
            TokenKind.CLOSE: self._take_closing,
            TokenKind.WEIGHT: self._take_weight,
            TokenKind.TAG: self._take_tag,
        }

    def take(self, token: Token) -> None:
        """Read the next token.

        Raises:
            InvalidPromptError: a bracket opens deeper than the limit.
        """
        self._handlers[token.kind](token)

    def finish(self) -> None:
        """Settle the brackets that are open, and warn of breaks in the text that are none."""
        # They are left open in the events: their text reaches to the end.
        for opening, brackets in self._open.items():
            for bracket in brackets:
                self._tally.add(WarningKind.UNCLOSED_BRACKET, bracket.position)
                self._settle(bracket, self._grammar.factors[opening])
        if self._grammar.warns:
            for start in breaks_in_vain(self._text, has_breaks=self._grammar.has_breaks):
                self._tally.add(WarningKind.BREAK_IS_TEXT, start)

    def _take_text(self, token: Token) -> None:
        if not token.value:
            self._tally.add(WarningKind.LONE_BACKSLASH, token.start)
        if token.value == "<":
            self._warn_of_tag(token.start)
        # An empty text stays until neighbours are merged: it keeps them apart, as in lpw.
        self.events.append(token)

    def _warn_of_tag(self, start: int) -> None:
        if TAG_BEGINNING.match(self._text, start):
            self._tally.add(WarningKind.UNCLOSED_TAG, start)
        elif is_tag(self._text, start):
            self._tally.add(WarningKind.UNKNOWN_TAG, start)

    def _take_break(self, token: Token) -> None:
        self.events.append(Break(token.start, token.end))

    def _take_tag(self, token: Token) -> None:
        self.events.append(read_tag(token.value, token.start, token.end))

    def _take_opening(self, token: Token) -> None:
        bracket = Bracket(token.value, token.start)
        self._open[token.value].append(bracket)
        depth = sum(map(len, self._open.values()))
        self._limits.check_depth(depth, token.start, self._field)
        self.events.append(bracket)

    def _take_closing(self, token: Token) -> None:
        opening = OPENINGS[token.value]
        if not self._open[opening]:
            self._take_unmatched(token)
            return
        if ends_in_number(self._text, token.start):
            self._tally.add(WarningKind.NUMBER_IS_TEXT, token.start)
        self._close(opening, self._grammar.factors[opening])

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
        self._open["("][-1].number_position = token.start
        self._close("(", factor)

    def _take_unmatched(self, token: Token) -> None:
        self._tally.add(WarningKind.UNMATCHED_BRACKET, token.end - 1)
        text = self._text[token.start : token.end]
        self.events.append(Token(TokenKind.TEXT, text, token.start, token.end))

    def _close(self, opening: str, factor: float) -> None:
        bracket = self._open[opening].pop()
        self._settle(bracket, factor)
        self.events.append(bracket)

    def _settle(self, bracket: Bracket, factor: float) -> None:
        bracket.factor = factor
        bracket.closing_rank = self._closed_count
        self._closed_count += 1
