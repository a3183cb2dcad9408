r"""Text to Prompt: a style's grammar, in time linear in the text.

In the `lpw` style `(a)` multiplies by 1.1, `[a]` by 1/1.1, `(a:1.3)` by 1.3; nested brackets
multiply. An open bracket counts to the end; a closing one without its opening one is text. A
bracket or a backslash behind a backslash is text. It follows diffusers' lpw_stable_diffusion_xl
but in three things: BREAK is a node without weight and not a word, a LoRA's tag is a node and not
text, and a malformed number (`(a:1..2)`), an error there, is text here and its bracket a plain one,
as a number with spaces (`(a : 1.2)`) is in both. A tag that can't be applied is a node too: no
image is made of the prompt, and an explanation of it states why.

The other styles are declared by their differences, in `grammar.GRAMMARS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby

from lpw_sdxl.prompt.brackets import Bracket, Nesting
from lpw_sdxl.prompt.grammar import GRAMMARS, PromptStyle
from lpw_sdxl.prompt.lexer import LEXERS, Token
from lpw_sdxl.prompt.limits import DEFAULT_LIMITS, PromptLimits
from lpw_sdxl.prompt.scanner import Event, Scanner
from lpw_sdxl.prompt.syntax import LoraTag, Node, Prompt, Span
from lpw_sdxl.prompt.warning import WarningKind, WarningTally


def parse(
    text: str,
    limits: PromptLimits = DEFAULT_LIMITS,
    *,
    style: PromptStyle = PromptStyle.LPW,
    field: str | None = None,
) -> Prompt:
    """Parse a prompt.

    Args:
        text: as the user wrote it.
        limits: on the prompt's cost.
        style: the dialect that it is written in.
        field: the request's field that an error names, such as `negative_prompt`.

    Raises:
        InvalidPromptError: a limit is broken or a weight is not finite; the message names the
            limit and the position, never the text.
    """
    limits.check_text(text, field)
    grammar, tally = GRAMMARS[style], WarningTally()
    scanner = Scanner(text, grammar, limits, tally, field)
    for token in LEXERS[style].lex(text):
        scanner.take(token)
    scanner.finish()
    weighed = tuple(_Weigher(grammar.nesting(), tally).weigh(scanner.events))
    nodes = tuple(_checked(_merge(weighed), limits, field))
    return Prompt(text, nodes, tally.warnings(), weighed)


class _Weigher:
    """A pass over the events of one text, which weighs each span by the brackets around it."""

    def __init__(self, nesting: Nesting, tally: WarningTally) -> None:
        self._nesting = nesting
        self._tally = tally
        self._texts = 0  # weighed so far by the brackets around; blank ones don't count

    def weigh(self, events: deque[Event]) -> Iterator[Node]:
        """Yield nodes for events, and remove these: many would keep the garbage collector busy."""
        while events:
            event = events.popleft()
            match event:
                case Token(_, text, start, end):
                    self._texts += text != "" and not text.isspace()
                    yield Span(text, self._nesting.weight(), start, end)
                case Bracket(texts_before=None):
                    self._open(event)
                case Bracket():
                    self._close(event)
                case _:
                    yield event

    def _open(self, bracket: Bracket) -> None:
        bracket.texts_before = self._texts
        if bracket.number_position is None:
            self._nesting.push(bracket)
            return
        around = self._nesting.weight()
        self._nesting.push(bracket)
        bracket.is_idle = self._nesting.weight() == around

    def _close(self, bracket: Bracket) -> None:
        assert bracket.texts_before is not None
        self._nesting.pop(bracket)
        number = bracket.number_position
        position = bracket.position if number is None else number
        if self._texts == bracket.texts_before:
            self._tally.add(WarningKind.WEIGHT_WITHOUT_TEXT, position)
        elif bracket.is_idle:
            self._tally.add(WarningKind.WEIGHT_CHANGES_NOTHING, position)
        if self._nesting.hides(bracket):
            self._texts = bracket.texts_before


def _merge(nodes: Iterable[Node]) -> Iterator[Node]:
    """Join neighbouring spans of exactly equal weight, then leave out the empty ones."""
    for weight, run in groupby(nodes, lambda node: node.weight if isinstance(node, Span) else None):
        if weight is None:
            yield from run
            continue
        spans = [node for node in run if isinstance(node, Span)]
        text = "".join(span.text for span in spans)
        if text:
            yield Span(text, weight, spans[0].start, spans[-1].end)


def _checked(nodes: Iterable[Node], limits: PromptLimits, field: str | None) -> Iterator[Node]:
    for node in nodes:
        if isinstance(node, Span | LoraTag):
            limits.check_weight(node.weight, node.start, field)
        if isinstance(node, LoraTag):
            limits.check_weight(node.text_encoder_weight, node.start, field)
        yield node
