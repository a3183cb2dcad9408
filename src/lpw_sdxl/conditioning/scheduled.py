"""Conditioning over the UNet calls of one image: which texts are in force, side by side."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.conditioning.read_schedule import ReadSchedule


@dataclass(frozen=True, eq=False, slots=True)
class EncodedText:
    """A text as the UNet takes it; the same object wherever it is in force.

    Attributes:
        embeds: [tokens, 2048].
        pooled: [1280].
    """

    embeds: Tensor
    pooled: Tensor

    def lengthened(self, tokens: int) -> EncodedText:
        """Repeat the last vector up to a number of tokens, as A1111 does for parts side by side."""
        missing = tokens - len(self.embeds)
        if not missing:
            return self
        last = self.embeds[-1:].expand(missing, -1)
        return EncodedText(torch.cat([self.embeds, last]), self.pooled)


class TextRow(NamedTuple):
    """A text in a UNet call, and the tokens that it has there.

    It is lengthened only when it is in force: a text beside one that changes by step may have many
    lengths, which together take far more memory than all texts.
    """

    text: EncodedText
    tokens: int


@dataclass(frozen=True, slots=True)
class ConditionedStage:
    """UNet calls in a row with the same texts.

    Attributes:
        until_call: the last of them, counted from 1.
        parts: side by side; the UNet takes all as long as the longest.
        weights: of the parts' predictions.
        negative: the negative prompt.
    """

    until_call: int
    parts: tuple[EncodedText, ...]
    weights: tuple[float, ...]
    negative: EncodedText

    @property
    def has_weights(self) -> bool:
        """Return whether there are several parts, or one whose weight is not 1."""
        return self.weights != (1.0,)

    def rows(self, *, is_guided: bool) -> list[TextRow]:
        """List the texts of a UNet call: the negative one, if any, the parts."""
        tokens = max(len(part.embeds) for part in self.parts)
        negative = [TextRow(self.negative, len(self.negative.embeds))] if is_guided else []
        return [*negative, *(TextRow(part, tokens) for part in self.parts)]


@dataclass(frozen=True, slots=True)
class ScheduledConditioning:
    """The texts of one image over its UNet calls.

    Attributes:
        stages: in the order of the calls; at least one.
    """

    stages: tuple[ConditionedStage, ...]

    @classmethod
    def constant(cls, conditioning: Conditioning) -> ScheduledConditioning:
        """Make the schedule of one pair for all calls."""
        prompt, negative = _texts(conditioning)
        return cls((ConditionedStage(1, (prompt,), (1.0,), negative),))

    @classmethod
    def of(cls, schedule: ReadSchedule, encoded: Sequence[Conditioning]) -> ScheduledConditioning:
        """Put encoded texts in the places of a schedule.

        Args:
            schedule: of a request.
            encoded: its pairs.
        """
        pairs = [_texts(conditioning) for conditioning in encoded]
        stages = []
        for stage in schedule.stages:
            parts = tuple(pairs[part.index][0] for part in stage.parts)
            weights = tuple(part.weight for part in stage.parts)
            negative = pairs[stage.negative_index][1]
            stages.append(ConditionedStage(stage.until_call, parts, weights, negative))
        return cls(tuple(stages))

    def at(self, call: int) -> ConditionedStage:
        """Return the stage of a call, counted from 1; the last one goes on for ever."""
        index = bisect_left(self.stages, call, key=lambda stage: stage.until_call)
        return self.stages[min(index, len(self.stages) - 1)]


def _texts(conditioning: Conditioning) -> tuple[EncodedText, EncodedText]:
    return (
        EncodedText(conditioning.prompt_embeds, conditioning.pooled_prompt_embeds),
        EncodedText(
            conditioning.negative_prompt_embeds, conditioning.negative_pooled_prompt_embeds
        ),
    )
