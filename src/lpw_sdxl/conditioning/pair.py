"""A prompt with its negative prompt, and the key by which its Conditioning is remembered."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from lpw_sdxl.prompt import Prompt, PromptStyle


@dataclass(frozen=True, slots=True)
class PromptPair:
    """What is encoded together.

    Attributes:
        prompt: text, or what `parse` made of it.
        negative_prompt: likewise.
        style: a PromptStyle or its name.
        clip_skip: layers left out at the end, of both encoders, for both prompts; None is 0.
    """

    prompt: str | Prompt
    negative_prompt: str | Prompt = ""
    style: PromptStyle | str = PromptStyle.LPW
    clip_skip: int | None = None


class PairKey(NamedTuple):
    """What a Conditioning depends on."""

    style: PromptStyle
    clip_skip: int
    prompt: str | Prompt
    negative_prompt: str | Prompt
    has_empty_negative: bool  # `()` is an equal tree, and not empty
    weights_key: Hashable

    @property
    def size(self) -> int:
        """Roughly the bytes that the key itself takes."""
        return sum(map(_text_size, (self.prompt, self.negative_prompt)))


def is_empty(prompt: str | Prompt) -> bool:
    """Tell whether there is nothing in a prompt, not even brackets."""
    return not prompt if isinstance(prompt, str) else not (prompt.text or prompt.nodes)


_NODE_BYTES = 250  # a node of a parsed prompt with its numbers


def _text_size(prompt: str | Prompt) -> int:
    if isinstance(prompt, str):
        return sys.getsizeof(prompt)
    return 2 * sys.getsizeof(prompt.text) + _NODE_BYTES * (len(prompt.nodes) + len(prompt.pieces))
