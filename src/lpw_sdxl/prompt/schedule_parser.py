"""Text to PromptSchedule: a prompt for the steps of one pass over an image.

What AUTOMATIC1111 takes out is taken out in its order: comments, tags, each AND with the weights
of the parts, and then what edits and alternations do not show. Every text that is left is parsed
by itself, and all places in it are those of the prompt as it was written. In the styles that have
none of this a prompt is one part of one text.
"""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum

from lpw_sdxl.prompt.comments import find_comments
from lpw_sdxl.prompt.constructs import find_constructs
from lpw_sdxl.prompt.excerpt import Excerpt, Run
from lpw_sdxl.prompt.grammar import GRAMMARS, PromptStyle
from lpw_sdxl.prompt.lexer import OPENINGS
from lpw_sdxl.prompt.limits import DEFAULT_LIMITS, PromptLimits
from lpw_sdxl.prompt.lora_tag import find_tags, read_tag
from lpw_sdxl.prompt.parser import parse, parse_excerpt
from lpw_sdxl.prompt.parts import AND, Part, split_parts
from lpw_sdxl.prompt.prompt_schedule import PromptSchedule, SchedulePart, StepSpan, Variant
from lpw_sdxl.prompt.schedule import ScheduledText, SharedTexts, schedule
from lpw_sdxl.prompt.steps import Steps
from lpw_sdxl.prompt.suspicion import divided_brackets, is_number_sign
from lpw_sdxl.prompt.syntax import LoraTag, RefusedTag
from lpw_sdxl.prompt.warning import PromptWarning, WarningKind, WarningTally

_BRACKET = re.compile(r"\\[\\()\[\]]|[()\[\]]")


class PromptField(StrEnum):
    """A text of a request; the value is its field."""

    PROMPT = "prompt"
    NEGATIVE_PROMPT = "negative_prompt"

    @property
    def has_parts(self) -> bool:
        """Return whether AND divides it; in a negative prompt it is a word like others."""
        return self is PromptField.PROMPT


def parse_schedule(
    text: str,
    steps: Steps,
    limits: PromptLimits = DEFAULT_LIMITS,
    *,
    style: PromptStyle,
    field: PromptField = PromptField.PROMPT,
) -> PromptSchedule:
    """Parse a prompt for the steps of one pass.

    Args:
        text: as the user wrote it.
        steps: of the pass.
        limits: on the prompt's cost.
        style: the dialect that it is written in.
        field: of the request; an error names it, and AND divides only the prompt.

    Raises:
        InvalidPromptError: a limit is broken or a weight is not finite; the message names the
            limit and, of a place, its position, never the text.
    """
    if not GRAMMARS[style].has_schedules:
        prompt = parse(text, limits, style=style, field=field)
        tags = tuple(node for node in prompt.nodes if isinstance(node, LoraTag | RefusedTag))
        variant = Variant(Excerpt.whole(text), prompt)
        parts = (SchedulePart(1.0, (StepSpan(steps.count, variant),)),)
        return PromptSchedule(text, parts, tags, _warn_of_other_styles(text, style))
    limits.check_text(text, field)
    return _Reader(steps, limits, style, field).read(text)


class _Reader:
    """The reading of one text in a style that has schedules."""

    def __init__(
        self, steps: Steps, limits: PromptLimits, style: PromptStyle, field: PromptField
    ) -> None:
        self._steps = steps
        self._limits = limits
        self._style = style
        self._field = field
        self._tally = WarningTally()
        self._texts = SharedTexts(limits, field)
        self._variants: dict[str, Variant] = {}

    def read(self, text: str) -> PromptSchedule:
        """Take a text apart, in the order of the module's docstring."""
        excerpt = self._take_comments(Excerpt.whole(text))
        excerpt, tags = self._take_tags(excerpt)
        ends_open = self._check_depth(excerpt)
        parts = self._split(excerpt, ends_open=ends_open)
        scheduled = [self._schedule(part.excerpt) for part in parts]
        # Only when all texts are known to be few enough are they parsed.
        return PromptSchedule(
            text,
            tuple(
                SchedulePart(part.weight, tuple(map(self._parse, texts)))
                for part, texts in zip(parts, scheduled, strict=True)
            ),
            tags,
            self._tally.warnings(),
        )

    def _take_comments(self, excerpt: Excerpt) -> Excerpt:
        comments = list(find_comments(excerpt.text))
        for comment in comments:
            if is_number_sign(excerpt.text[comment.start : comment.start + 2]):
                self._tally.add(WarningKind.COMMENT, comment.start)
        return excerpt.without(comments)

    def _take_tags(self, excerpt: Excerpt) -> tuple[Excerpt, tuple[LoraTag | RefusedTag, ...]]:
        """Take tags out and read them.

        Raises:
            InvalidPromptError: a LoRA's weight is over the limit.
        """
        places, tags = [], []
        for match in find_tags(excerpt.text):
            start, end = match.span()
            tag = read_tag(match.group(), excerpt.place(start), excerpt.place(end - 1) + 1)
            if isinstance(tag, LoraTag):
                for weight in (tag.weight, tag.text_encoder_weight):
                    self._limits.check_weight(weight, tag.start, self._field)
            places.append(Run(start, end))
            tags.append(tag)
        return excerpt.without(places), tuple(tags)

    def _check_depth(self, excerpt: Excerpt) -> bool:
        """Refuse brackets that nest too deep; in no text that is left are they deeper.

        Returns:
            Whether a bracket is open at the end.

        Raises:
            InvalidPromptError: so many are open at the same time.
        """
        open_count: Counter[str] = Counter()
        for match in _BRACKET.finditer(excerpt.text):
            bracket = match.group()
            if bracket in ("(", "["):
                open_count[bracket] += 1
                depth = open_count.total()
                if depth > self._limits.max_depth:
                    place = excerpt.place(match.start())
                    self._limits.check_depth(depth, place, self._field)
            elif bracket in OPENINGS and open_count[OPENINGS[bracket]]:
                open_count[OPENINGS[bracket]] -= 1
        return open_count.total() > 0

    def _split(self, excerpt: Excerpt, *, ends_open: bool) -> list[Part]:
        """Split a prompt at each AND.

        A prompt of one part, such as `(a cat:1.2`, may end in a number only because a closing
        bracket is missing. A1111 would take it for the weight of all; here it is text.

        Raises:
            InvalidPromptError: there are too many parts, or one's weight is over the limit.
        """
        if not self._field.has_parts:
            for match in AND.finditer(excerpt.text):
                self._tally.add(WarningKind.AND_IS_TEXT, excerpt.place(match.start()))
            return [Part(excerpt, 1.0, None)]
        parts = list(split_parts(excerpt))
        if len(parts) == 1 and ends_open:
            return [Part(excerpt, 1.0, None)]
        self._limits.check_parts(len(parts), self._field)
        for part in parts:
            if part.number_position is not None:
                self._limits.check_weight(part.weight, part.number_position, self._field)
        if len(parts) == 1 and parts[0].number_position is not None:
            self._tally.add(WarningKind.WEIGHT_OF_ALL, parts[0].number_position)
        return parts

    def _schedule(self, excerpt: Excerpt) -> tuple[ScheduledText, ...]:
        constructs = find_constructs(excerpt.text)
        if constructs:
            return schedule(excerpt, constructs, self._steps, self._texts)
        if constructs is None:
            for position in divided_brackets(excerpt.text):
                self._tally.add(WarningKind.SCHEDULE_IS_PLAIN, excerpt.place(position))
        return (ScheduledText(self._steps.count, self._texts.share(excerpt)),)

    def _parse(self, scheduled: ScheduledText) -> StepSpan:
        excerpt = scheduled.excerpt
        if excerpt.text not in self._variants:
            prompt = parse_excerpt(excerpt, self._limits, style=self._style, field=self._field)
            self._variants[excerpt.text] = Variant(excerpt, prompt)
        return StepSpan(scheduled.until_step, self._variants[excerpt.text])


def _warn_of_other_styles(text: str, style: PromptStyle) -> tuple[PromptWarning, ...]:
    """Find what the styles with schedules read otherwise."""
    tally = WarningTally()
    if GRAMMARS[style].warns:
        for construct in find_constructs(text) or ():
            tally.add(WarningKind.SCHEDULE_IS_TEXT, construct.borders[0])
        for match in AND.finditer(text):
            tally.add(WarningKind.AND_IS_TEXT, match.start())
    return tally.warnings()
