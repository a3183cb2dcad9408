r"""Text to Prompt: a style's grammar, in time linear in the text.

In the `lpw` style `(a)` multiplies by 1.1, `[a]` by 1/1.1, `(a:1.3)` by 1.3; nested brackets
multiply. An open bracket counts to the end; a closing one without its opening one is text. A
bracket or a backslash behind a backslash is text. It follows diffusers' lpw_stable_diffusion_xl
but in three things: BREAK is a node without weight and not a word, a LoRA's tag is a node and not
text, and a malformed number (`(a:1..2)`), an error there, is text here and its bracket a plain one,
as a number with spaces (`(a : 1.2)`) is in both. A tag that can't be applied is a node too: no
image is made of the prompt, and an explanation of it states why.

The other styles are declared by their differences, in `grammar.GRAMMARS`. What changes by step or
stands side by side is found before, by `schedule_parser`, in the styles that have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby

from lpw_sdxl.prompt.brackets import Bracket
from lpw_sdxl.prompt.excerpt import Excerpt
from lpw_sdxl.prompt.grammar import GRAMMARS, Grammar, PromptStyle
from lpw_sdxl.prompt.lexer import LEXERS, Token
from lpw_sdxl.prompt.limits import DEFAULT_LIMITS, PromptLimits
from lpw_sdxl.prompt.placement import place
from lpw_sdxl.prompt.scanner import Event, Scanner
from lpw_sdxl.prompt.syntax import Break, LoraTag, Node, Prompt, Span
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
    prompt = _read(text, limits, style, field)
    _check_weights(prompt, limits, field)
    return prompt


def parse_excerpt(
    excerpt: Excerpt,
    limits: PromptLimits = DEFAULT_LIMITS,
    *,
    style: PromptStyle = PromptStyle.LPW,
    field: str | None = None,
) -> Prompt:
    """Parse a text that is left of a prompt without its tags; nothing in it is read as one.

    Args:
        excerpt: of a prompt within the limits of characters and of depth.
        limits: on its weights.
        style: the dialect that it is written in.
        field: the request's field that an error names.

    Returns:
        Its tree; all positions are places in the prompt as it was written.

    Raises:
        InvalidPromptError: a weight is over the limit or not finite.
    """
    read = _read(excerpt.text, limits, style, field, may_hold_tags=False)
    prompt = place(read, excerpt)
    _check_weights(prompt, limits, field)
    return prompt


def _read(
    text: str,
    limits: PromptLimits,
    style: PromptStyle,
    field: str | None,
    *,
    may_hold_tags: bool = True,
) -> Prompt:
    grammar, tally = GRAMMARS[style], WarningTally()
    scanner = Scanner(text, grammar, limits, tally, field)
    for token in LEXERS[style].lex(text, may_hold_tags=may_hold_tags):
        scanner.take(token)
    scanner.finish()
    weighed = tuple(_Weigher(grammar, tally).weigh(scanner.events))
    return Prompt(text, tuple(_merge(weighed)), tally.warnings(), weighed)


class _Weigher:
    """A pass over the events of one text, which weighs each span by the brackets around it."""

    def __init__(self, grammar: Grammar, tally: WarningTally) -> None:
        self._nesting = grammar.nesting()
        self._weighs_breaks = grammar.weighs_breaks
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
                case Break() if self._weighs_breaks and self._nesting.weight() != 1.0:
                    yield from self._weigh_break(event)
                case _:
                    yield event

    def _weigh_break(self, word: Break) -> Iterator[Span]:
        """Read BREAK as A1111 does: there it weighs -1, and only what still does is a break.

        The empty texts on both sides are there too, and keep it apart from its neighbours.
        """
        self._texts += 1
        self._tally.add(WarningKind.WEIGHED_BREAK, word.start)
        weight = self._nesting.weight()
        yield Span("", weight, word.start, word.start)
        yield Span("BREAK", -weight, word.start, word.end)
        yield Span("", weight, word.end, word.end)

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
        spans = [node for node in run if isinstance(node, Span) and node.start < node.end]
        text = "".join(span.text for span in spans)
        if text:
            yield Span(text, weight, spans[0].start, spans[-1].end)


def _check_weights(prompt: Prompt, limits: PromptLimits, field: str | None) -> None:
    for node in prompt.nodes:
        if isinstance(node, Span | LoraTag):
            limits.check_weight(node.weight, node.start, field)
        if isinstance(node, LoraTag):
            limits.check_weight(node.text_encoder_weight, node.start, field)
