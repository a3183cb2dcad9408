"""A prompt over the steps of an image: its parts side by side, and the texts of each by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from lpw_sdxl.prompt.excerpt import Excerpt
from lpw_sdxl.prompt.syntax import LoraTag, Prompt, RefusedTag
from lpw_sdxl.prompt.warning import PromptWarning


@dataclass(frozen=True, slots=True)
class Variant:
    """A text that a prompt is in some of its steps.

    Attributes:
        excerpt: the text, with its places in the prompt as it was written.
        prompt: the text, parsed; its positions are in the prompt as it was written too.
    """

    excerpt: Excerpt
    prompt: Prompt

    @property
    def text(self) -> str:
        """Return the text, brackets of weights and escapes as they were written."""
        return self.excerpt.text


@dataclass(frozen=True, slots=True)
class StepSpan:
    """Steps in a row that have one text.

    Attributes:
        until_step: the last of them, counted from 1; the first follows the span before.
        variant: in force. Equal texts of one prompt are one object.
    """

    until_step: int
    variant: Variant


@dataclass(frozen=True, slots=True)
class SchedulePart:
    """A part of a prompt, beside its others.

    Attributes:
        weight: of its prediction.
        spans: in the order of the steps; at least one.
    """

    weight: float
    spans: tuple[StepSpan, ...]


@dataclass(frozen=True, slots=True)
class WeightedVariant:
    """A part's text in force, with the part's weight."""

    variant: Variant
    weight: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps in a row in which the text of no part changes.

    Attributes:
        until_step: the last of them, counted from 1.
        parts: all, in their order.
    """

    until_step: int
    parts: tuple[WeightedVariant, ...]


@dataclass(frozen=True, slots=True)
class PromptSchedule:
    """A prompt over the steps of one pass.

    Attributes:
        text: as it was written.
        parts: at least one; the spans of each end at the last step.
        tags: in their order. Where the style has schedules no text holds any of them.
        warnings: of what a text by itself does not show; each text has its own beside.
    """

    text: str
    parts: tuple[SchedulePart, ...]
    tags: tuple[LoraTag | RefusedTag, ...] = ()
    warnings: tuple[PromptWarning, ...] = ()

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Return the different texts, part by part in the order in which they come into force."""
        spans = (span for part in self.parts for span in part.spans)
        return tuple({span.variant.text: span.variant for span in spans}.values())

    @property
    def lora_tags(self) -> tuple[LoraTag, ...]:
        """Return the LoRA tags, repeated names included."""
        return tuple(tag for tag in self.tags if isinstance(tag, LoraTag))

    @property
    def refused_tags(self) -> tuple[RefusedTag, ...]:
        """Return the tags for which the prompt is refused."""
        return tuple(tag for tag in self.tags if isinstance(tag, RefusedTag))

    def stages(self) -> Iterator[Stage]:
        """Yield the texts of all parts together, by step."""
        rest = [deque(part.spans) for part in self.parts]
        for until_step in sorted({span.until_step for part in self.parts for span in part.spans}):
            yield Stage(
                until_step,
                tuple(
                    WeightedVariant(spans[0].variant, part.weight)
                    for spans, part in zip(rest, self.parts, strict=True)
                ),
            )
            for spans in rest:
                if spans[0].until_step == until_step:
                    spans.popleft()
