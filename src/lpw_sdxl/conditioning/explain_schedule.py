"""A pair of prompts over the steps of an image, in words and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from lpw_sdxl.conditioning.explain import ExplainedPrompt, state_obstacle
from lpw_sdxl.conditioning.prompt_reader import PromptReader
from lpw_sdxl.prompt import (
    PromptField,
    PromptSchedule,
    PromptStyle,
    Run,
    Stage,
    Steps,
    parse_schedule,
)


@dataclass(frozen=True, slots=True)
class ExplainedPart:
    """A text that is in force, brackets of weights and escapes as they were written.

    Attributes:
        text: without comments, tags, and what its step does not show.
        weight: of its prediction beside those of the other parts.
    """

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class ExplainedStage:
    """Steps in a row with the same texts.

    Attributes:
        until_step: the last of them, counted from 1.
        parts: side by side; one, unless AND divides the prompt.
    """

    until_step: int
    parts: tuple[ExplainedPart, ...]

    @classmethod
    def of(cls, stage: Stage) -> ExplainedStage:
        """Take a stage's texts and weights."""
        parts = (ExplainedPart(one.variant.text, one.weight) for one in stage.parts)
        return cls(stage.until_step, tuple(parts))


@dataclass(frozen=True, slots=True)
class ExplainedText:
    """One of the texts that a prompt becomes.

    Attributes:
        text: as its stages have it.
        runs: pieces of the prompt as it was written, which are the text end to end.
        explanation: of the text; its positions are in the prompt as it was written.
    """

    text: str
    runs: tuple[Run, ...]
    explanation: ExplainedPrompt


@dataclass(frozen=True, slots=True)
class ExplainedSchedule:
    """A prompt over its steps.

    Attributes:
        schedule: of the prompt.
        stages: in the order of their steps.
        texts: each once.
        warnings: of no single text; first why no image is made of the prompt, if none is.
    """

    schedule: PromptSchedule
    stages: tuple[ExplainedStage, ...]
    texts: tuple[ExplainedText, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScheduleReport:
    """A prompt and its negative prompt over the steps of one pass.

    Attributes:
        style: of both.
        steps: of the pass.
        fields: of the request, `prompt` and `negative_prompt`.
    """

    style: PromptStyle
    steps: Steps
    fields: Mapping[PromptField, ExplainedSchedule]

    @classmethod
    def read(
        cls, reader: PromptReader, texts: tuple[str, str], steps: Steps, style: PromptStyle
    ) -> ScheduleReport:
        """Parse a prompt and a negative prompt, and describe every text that they become.

        Raises:
            InvalidPromptError: a text breaks a limit; the error names its field.
        """
        schedules = {
            field: parse_schedule(text, steps, reader.limits, style=style, field=field)
            for field, text in zip(PromptField, texts, strict=True)
        }
        fields = {field: _explain(schedules, field, reader, style) for field in schedules}
        return cls(style, steps, fields)

    def values(self) -> dict[str, object]:
        """Return the report as plain values: the schedule, and the texts with their chunks."""
        return {
            "style": self.style,
            "schedule": {
                field: [dataclasses.asdict(stage) for stage in one.stages]
                for field, one in self.fields.items()
            },
            "texts": {
                field: [dataclasses.asdict(text) for text in one.texts]
                for field, one in self.fields.items()
            },
            "warnings": {field: one.warnings for field, one in self.fields.items()},
        }


def _explain(
    schedules: Mapping[PromptField, PromptSchedule],
    field: PromptField,
    reader: PromptReader,
    style: PromptStyle,
) -> ExplainedSchedule:
    schedule = schedules[field]
    variants = schedule.variants
    stages = tuple(map(ExplainedStage.of, schedule.stages()))
    warnings = tuple(map(str, schedule.warnings))
    refused = schedule.refused_tags
    # Where the tags stand in the text, the text's own warnings name them.
    if refused and not variants[0].prompt.refused_tags:
        warnings = (state_obstacle(refused[0].reason, len(refused)), *warnings)
    # Only the styles of one text for all steps chunk a prompt together with the other.
    pair = {one: read.variants[0].prompt for one, read in schedules.items()}
    texts = []
    for variant in variants:
        pair[field] = variant.prompt
        explained = reader.explain(
            pair[PromptField.PROMPT], pair[PromptField.NEGATIVE_PROMPT], style
        )
        texts.append(ExplainedText(variant.text, variant.excerpt.runs, getattr(explained, field)))
    return ExplainedSchedule(schedule, stages, tuple(texts), warnings)
