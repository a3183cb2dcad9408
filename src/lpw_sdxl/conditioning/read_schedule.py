"""A request's prompts over the steps of an image, as its text encoders read them; no tensors.

Every different text is read once, whatever it shares with others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lpw_sdxl.conditioning.read_prompts import NamedEmbedding, ReadPrompts, ReadText
from lpw_sdxl.prompt import PromptSchedule


@dataclass(frozen=True, slots=True)
class ReadPart:
    """A part's text in force.

    Attributes:
        index: of the pair whose prompt it is.
        weight: of its prediction beside those of the other parts.
    """

    index: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ReadStage:
    """UNet calls in a row with the same texts.

    Attributes:
        until_call: the last of them, counted from 1.
        parts: side by side; at least one.
        negative_index: of the pair whose negative prompt is in force.
    """

    until_call: int
    parts: tuple[ReadPart, ...]
    negative_index: int = 0


@dataclass(frozen=True, slots=True)
class ReadSchedule:
    """The texts of a request and the UNet calls in which each is in force.

    Attributes:
        pairs: prompts and negative prompts, each text in one place.
        stages: in the order of the calls; the last one ends at or behind the last call.
    """

    pairs: tuple[ReadPrompts, ...]
    stages: tuple[ReadStage, ...]

    @classmethod
    def constant(cls, prompts: ReadPrompts, calls: int) -> ReadSchedule:
        """Make the schedule of one pair for all calls."""
        return cls((prompts,), (ReadStage(calls, (ReadPart(0),)),))

    @property
    def part_count(self) -> int:
        """Count the parts side by side; of every stage there are as many."""
        return len(self.stages[0].parts)

    @property
    def has_weights(self) -> bool:
        """Return whether there are several parts, or one whose weight is not 1."""
        return [part.weight for part in self.stages[0].parts] != [1.0]

    @property
    def texts(self) -> tuple[ReadText, ...]:
        """Return all texts, each once."""
        return tuple(text for pair in self.pairs for text in pair.texts)

    @property
    def embeddings(self) -> tuple[NamedEmbedding, ...]:
        """Return the embeddings in all texts, each once, by name."""
        by_name = {one.name: one for pair in self.pairs for one in pair.embeddings}
        return tuple(by_name[name] for name in sorted(by_name))

    @property
    def longest(self) -> Iterator[ReadText]:
        """Yield the longest prompt and the longest negative prompt."""
        for side in zip(*((pair.prompt, pair.negative_prompt) for pair in self.pairs), strict=True):
            yield max((one for one in side if one is not None), key=lambda one: one.chunk_count)


def join_stages(prompt: PromptSchedule, negative_prompt: PromptSchedule) -> Iterator[ReadStage]:
    """Yield the calls in a row in which no text of either prompt changes.

    Args:
        prompt: whose variants are the pairs' prompts, in their order.
        negative_prompt: likewise.
    """
    places = [
        {variant.text: index for index, variant in enumerate(one.variants)}
        for one in (prompt, negative_prompt)
    ]
    prompts, negatives = [*prompt.stages()], [*negative_prompt.stages()]
    first = second = 0
    while first < len(prompts) and second < len(negatives):
        until = min(prompts[first].until_step, negatives[second].until_step)
        [negative] = negatives[second].parts
        yield ReadStage(
            until,
            tuple(
                ReadPart(places[0][part.variant.text], part.weight) for part in prompts[first].parts
            ),
            places[1][negative.variant.text],
        )
        first += prompts[first].until_step == until
        second += negatives[second].until_step == until
