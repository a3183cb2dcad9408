"""A pair of prompts over the steps of an image, in words and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from lpw_sdxl.conditioning.explain import ExplainedPrompt, PromptExplanation, state_obstacle
from lpw_sdxl.conditioning.prompt_reader import ParsedSchedules, PromptReader
from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import Prompt, PromptSchedule, PromptStyle, Run, Stage

MOST_SHOWN_CHARACTERS = 2**22
"""Of the texts of all stages of one prompt: a long text is written again at each step."""
_EMPTY = Prompt("", ())


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
class InspectedPrompt(ExplainedPrompt):
    """A prompt over its steps; what only one text has is the first text's.

    The LoRA tags are the prompt's, and its warnings are of no single text or of any of them.

    Attributes:
        texts: each once, part by part in the order in which they come into force.
    """

    texts: tuple[ExplainedText, ...]


@dataclass(frozen=True, slots=True)
class ExplainedSchedule:
    """The stages of a prompt and of its negative prompt, in the order of their steps."""

    prompt: tuple[ExplainedStage, ...]
    negative_prompt: tuple[ExplainedStage, ...]


@dataclass(frozen=True, slots=True)
class PromptInspection:
    """A prompt and its negative prompt in one style, over the steps of one image.

    Attributes:
        style: of both.
        prompt: and all its texts.
        negative_prompt: likewise.
        schedule: which of the texts each step has.
    """

    style: PromptStyle
    prompt: InspectedPrompt
    negative_prompt: InspectedPrompt
    schedule: ExplainedSchedule


def explain_schedules(
    reader: PromptReader, schedules: ParsedSchedules, style: PromptStyle
) -> PromptInspection:
    """Describe every text that a prompt and its negative prompt become.

    Args:
        reader: of both.
        schedules: of both, parsed in this style.
        style: of both.

    Raises:
        InvalidPromptError: a text fills more chunks than the reader takes, or all texts together
            do, or they would be written too often; the error names the field.
    """
    stages = {field: _stages(one, field) for field, one in schedules._asdict().items()}
    explained = _explain_texts(reader, schedules, style)
    prompts = {
        field: _inspect(schedule, [getattr(pair, field) for pair in explained])
        for field, schedule in schedules._asdict().items()
    }
    for field, prompt in prompts.items():
        counts = [len(text.explanation.windows) for text in prompt.texts]
        reader.check_all_chunks(field, counts)
    return PromptInspection(style, **prompts, schedule=ExplainedSchedule(**stages))


def _stages(schedule: PromptSchedule, field: str) -> tuple[ExplainedStage, ...]:
    """Take the stages of a prompt, unless their texts are too long together.

    Raises:
        InvalidPromptError: they are.
    """
    stages = tuple(map(ExplainedStage.of, schedule.stages()))
    count = sum(len(part.text) for stage in stages for part in stage.parts)
    if count > MOST_SHOWN_CHARACTERS:
        raise InvalidPromptError(
            f"the texts of {field} by step are {count} characters; at most {MOST_SHOWN_CHARACTERS}"
            " are shown, with a shorter text or fewer steps",
            field=field,
        )
    return stages


def _explain_texts(
    reader: PromptReader, schedules: ParsedSchedules, style: PromptStyle
) -> list[PromptExplanation]:
    """Explain all texts, each once; the shorter side is filled up with empty prompts.

    Only the styles that have one text for all steps fit a prompt's chunks to the other's.
    """
    sides = ([variant.prompt for variant in one.variants] for one in schedules)
    return [
        reader.explain(prompt, negative_prompt, style)
        for prompt, negative_prompt in zip_longest(*sides, fillvalue=_EMPTY)
    ]


def _inspect(schedule: PromptSchedule, explained: Sequence[ExplainedPrompt]) -> InspectedPrompt:
    texts = tuple(
        ExplainedText(variant.text, variant.excerpt.runs, explanation)
        # A negative prompt may have more texts than its prompt.
        for variant, explanation in zip(schedule.variants, explained, strict=False)
    )
    first = {one.name: getattr(explained[0], one.name) for one in dataclasses.fields(explained[0])}
    return InspectedPrompt(
        **first
        | {
            "lora_tags": schedule.lora_tags,
            "warnings": tuple(dict.fromkeys(_warnings(schedule, texts))),
        },
        texts=texts,
    )


def _warnings(schedule: PromptSchedule, texts: Sequence[ExplainedText]) -> Iterator[str]:
    """Yield why no image is made of a prompt, if none is, then all that it warns of.

    What several texts warn of comes as often; so does an obstacle that stands in a text.
    """
    if refused := schedule.refused_tags:
        yield state_obstacle(refused[0].reason, len(refused))
    yield from map(str, schedule.warnings)
    yield from chain.from_iterable(text.explanation.warnings for text in texts)
