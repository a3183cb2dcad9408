"""The text of a prompt by step: edits and alternations carried out, as AUTOMATIC1111 does it.

An edit shows its first text up to the step that its number names, and its second text after that;
an alternation shows one text a step, in turn. Each step's text is put together from slices, and a
slice is shown in a set of steps: an integer whose bit 0 is the first step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lpw_sdxl.prompt.constructs import Construct
from lpw_sdxl.prompt.excerpt import Excerpt, Run
from lpw_sdxl.prompt.limits import PromptLimits
from lpw_sdxl.prompt.steps import Steps

_ONE = re.compile("1")


class ScheduledText(NamedTuple):
    """A text that is in force up to a step, that one included, since the one before it.

    Attributes:
        until_step: counted from 1.
        excerpt: the text, brackets of weights and escapes as they were written.
    """

    until_step: int
    excerpt: Excerpt


class SharedTexts:
    """The different texts of a prompt, each kept once, and their limit."""

    def __init__(self, limits: PromptLimits, field: str | None) -> None:
        self._limits = limits
        self._field = field
        self._excerpts: dict[str, Excerpt] = {}
        self._characters = 0

    def share(self, excerpt: Excerpt) -> Excerpt:
        """Return the excerpt of this text that came first.

        Raises:
            InvalidPromptError: with this text they are too many, or too long together.
        """
        if (kept := self._excerpts.get(excerpt.text)) is not None:
            return kept
        self._excerpts[excerpt.text] = excerpt
        self._characters += len(excerpt.text)
        self._limits.check_variants(len(self._excerpts), self._characters, self._field)
        return excerpt


def schedule(
    excerpt: Excerpt, constructs: Sequence[Construct], steps: Steps, texts: SharedTexts
) -> tuple[ScheduledText, ...]:
    """Find the text of each step, in time linear in the text.

    Args:
        excerpt: a prompt or one part of it.
        constructs: in its text.
        steps: of the pass.
        texts: those of the whole prompt.

    Returns:
        The texts in the order of their steps: one for each step if any alternation is in the text,
        else one up to each step at which an edit ends. The last is in force up to the last step.

    Raises:
        InvalidPromptError: the texts are too many, or too long together.
    """
    slices = list(_read_slices(excerpt, constructs, steps))
    shown = _sets_by_step(slices, steps.count)
    # Steps that show the same slices have the same text, which is then put together once.
    known: dict[tuple[int, ...], Excerpt] = {}
    scheduled = []
    for step in _last_steps(constructs, steps):
        key = tuple(shown.by_step[step - 1])
        if key not in known:
            indexes = sorted(index for one in key for index in shown.slices[one])
            known[key] = texts.share(_join([slices[index] for index in indexes]))
        scheduled.append(ScheduledText(step, known[key]))
    return tuple(scheduled)


class _Slice(NamedTuple):
    """A piece of the text and the set of steps that show it."""

    text: str
    runs: tuple[Run, ...]
    steps: int


def _last_steps(constructs: Sequence[Construct], steps: Steps) -> Sequence[int]:
    """List the steps with which a text can end."""
    if any(construct.when is None for construct in constructs):
        return range(1, steps.count + 1)
    ends = {steps.last_before(one.when) for one in constructs if one.when is not None}
    return sorted((ends | {steps.count}) - {0})


def _read_slices(
    excerpt: Excerpt, constructs: Sequence[Construct], steps: Steps
) -> Iterator[_Slice]:
    """Cut a text at the borders of its constructs; leave out what no step shows."""
    text, shown = excerpt.text, [(1 << steps.count) - 1]
    start = 0
    for position, choice in (*sorted(_choices(constructs, steps)), (len(text), None)):
        if shown[-1] and start < position:
            runs = tuple(excerpt.between(start, position))
            yield _Slice(text[start:position], runs, shown[-1])
        start = position + 1
        if choice is None:
            continue
        if not choice.is_first:
            shown.pop()
        if choice.steps is not None:
            shown.append(shown[-1] & choice.steps)


class _Choice(NamedTuple):
    """A change of what is read behind a border: a construct's next text, or what is around it.

    Attributes:
        is_first: whether it is the construct's first text.
        steps: that show the text; None behind the closing bracket.
    """

    is_first: bool
    steps: int | None


def _choices(constructs: Sequence[Construct], steps: Steps) -> Iterator[tuple[int, _Choice | None]]:
    """Yield the position of each border with the choice behind it."""
    for construct in constructs:
        opening, *others, closing = construct.borders
        sets = _steps_of_texts(construct, steps)
        yield opening, _Choice(is_first=True, steps=next(sets))
        for border in others:
            yield border, _Choice(is_first=False, steps=next(sets))
        yield closing, _Choice(is_first=False, steps=None)


def _steps_of_texts(construct: Construct, steps: Steps) -> Iterator[int]:
    """Yield the set of steps of each text of a construct; an edit's number is shown in none."""
    count, every = len(construct.borders) - 1, (1 << steps.count) - 1
    if construct.when is None:
        first = _every_nth(count, steps.count)
        yield from (first << index & every if index < steps.count else 0 for index in range(count))
        return
    before = (1 << steps.last_before(construct.when)) - 1
    yield from (before, every ^ before, 0)[-count:]


def _every_nth(turns: int, count: int) -> int:
    """Return the set of the first of `turns` steps, of the first of the next `turns`, and so on."""
    if turns >= count:
        return 1
    rounds = -(-count // turns)
    return ((1 << turns * rounds) - 1) // ((1 << turns) - 1)


class _Shown(NamedTuple):
    """The slices by the sets of steps that show them.

    Attributes:
        slices: indexes of the slices of each set.
        by_step: indexes of the sets that each step is in.
    """

    slices: list[list[int]]
    by_step: list[list[int]]


def _sets_by_step(slices: Sequence[_Slice], count: int) -> _Shown:
    """Find what each step shows, in time linear in what all steps show together."""
    by_set: dict[int, list[int]] = {}
    for index, one in enumerate(slices):
        by_set.setdefault(one.steps, []).append(index)
    by_step: list[list[int]] = [[] for _ in range(count)]
    for number, steps in enumerate(by_set):
        for match in _ONE.finditer(f"{steps:b}"[::-1]):
            by_step[match.start()].append(number)
    return _Shown([*by_set.values()], by_step)


def _join(slices: Sequence[_Slice]) -> Excerpt:
    text = "".join([one.text for one in slices])
    return Excerpt(text, tuple([run for one in slices for run in one.runs]))
