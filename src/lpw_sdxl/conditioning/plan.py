"""The encoding of a pair of prompts as it is planned: which windows, weights and zeros."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lpw_sdxl.conditioning.chunking import TokenChunks, empty_window
from lpw_sdxl.conditioning.emphasis import READ_EMPTY_PROMPT
from lpw_sdxl.conditioning.read_prompts import ReadPrompts
from lpw_sdxl.conditioning.styles import STYLES, EmphasisName
from lpw_sdxl.conditioning.windows import PackedIds, SpecialTokens

WindowKey = tuple[int, PackedIds]
"""clip_skip and ids of a window."""


@dataclass(frozen=True, slots=True)
class SidePlan:
    """The encoding of one prompt of a pair.

    Attributes:
        chunks: one for each encoder.
        clip_skip: layers left out.
    """

    chunks: tuple[TokenChunks, ...]
    clip_skip: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The encoding of a pair of prompts.

    Attributes:
        prompt: the prompt's side; None where there is none.
        negative_prompt: likewise, and None for zeros in place of an empty negative prompt.
        has_zeros: whether it is zeros.
        emphasis: of both.
        empty_windows: ids of the style's empty prompt, for each encoder; None where the emphasis
            does not read it.
    """

    prompt: SidePlan | None
    negative_prompt: SidePlan | None
    emphasis: EmphasisName
    empty_windows: tuple[PackedIds, ...] | None
    has_zeros: bool = False

    def windows(self, encoder: int) -> Iterator[WindowKey]:
        """List the windows that the encoder at an index has to read; some twice."""
        for side in filter(None, (self.prompt, self.negative_prompt)):
            for window in side.chunks[encoder].windows:
                yield side.clip_skip, window.packed_ids
            if self.empty_windows is not None:
                yield side.clip_skip, self.empty_windows[encoder]


def make_plan(prompts: ReadPrompts, specials: Sequence[SpecialTokens]) -> Plan:
    """Plan the encoding of prompts by their style's rules.

    Args:
        prompts: a pair, read.
        specials: each encoder's special tokens.
    """
    rules, negative = STYLES[prompts.style], prompts.negative_prompt
    prompt = prompts.prompt
    has_zeros = rules.has_zeros_for_empty_negative and negative is not None and negative.is_empty
    negative_skip = prompts.clip_skip if rules.skips_layers_for_negative else 0
    empty_windows = None
    if rules.emphasis in READ_EMPTY_PROMPT:
        empty_windows = tuple(empty_window(prompts.style, one).packed_ids for one in specials)
    return Plan(
        prompt=None if prompt is None else SidePlan(prompt.chunks, prompts.clip_skip),
        negative_prompt=None
        if has_zeros or negative is None
        else SidePlan(negative.chunks, negative_skip),
        emphasis=rules.emphasis,
        empty_windows=empty_windows,
        has_zeros=has_zeros,
    )
