"""Tokens to chunks: windows of at most 77 ids with their weights; it knows nothing of tensors.

A chunking takes prompt and negative prompt together, because a style may fit one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

from lpw_sdxl.prompt import Break, Prompt, PromptStyle, Span

WINDOW_TOKENS = 75
"""Tokens of text in a full window; with BOS and EOS it has CLIP's 77 positions."""


class SpecialTokens(NamedTuple):
    """The ids that open and close a window, as the tokenizer gives them."""

    bos: int
    eos: int


class WeightedToken(NamedTuple):
    """A token's id and the weight of the span that it came from."""

    id: int
    weight: float


@dataclass(frozen=True, slots=True)
class Window:
    """What a text encoder reads in one pass.

    Attributes:
        ids: BOS, up to 75 ids, EOS; at most 77.
        weights: one for each id; 1 for BOS, EOS and padding.
        text_count: ids that came from the prompt's text; they follow BOS, padding follows them.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    text_count: int


@dataclass(frozen=True, slots=True)
class TokenChunks:
    """One prompt's windows, in order.

    Attributes:
        windows: at least one.
        pooled_window: index of the window that gives the pooled vector.
    """

    windows: tuple[Window, ...]
    pooled_window: int

    @property
    def token_count(self) -> int:
        """Tokens of the prompt's own text, in all windows."""
        return sum(window.text_count for window in self.windows)

    @property
    def text_windows(self) -> int:
        """Windows up to the last that holds text; what follows is padding to the other prompt."""
        return _count_text_windows(self.windows)


class ChunkedPair(NamedTuple):
    """A prompt and its negative prompt, chunked together."""

    prompt: TokenChunks
    negative_prompt: TokenChunks


Segment = tuple[WeightedToken, ...]
"""The tokens between two breaks."""


def tokenize(prompt: Prompt, token_ids: Callable[[str], Sequence[int]]) -> tuple[Segment, ...]:
    """Turn a prompt into segments of weighted tokens; LoRA tags are left out.

    Args:
        prompt: the parsed prompt.
        token_ids: a tokenizer without BOS, EOS, padding and truncation. It is called once for
            each span, so words never join over the border of two weights.
    """
    segments: list[list[WeightedToken]] = [[]]
    for node in prompt.nodes:
        if isinstance(node, Break):
            segments.append([])
        elif isinstance(node, Span):
            segments[-1] += [WeightedToken(id_, node.weight) for id_ in token_ids(node.text)]
    return tuple(tuple(segment) for segment in segments)


class Chunking(Protocol):
    """How a style lays the tokens of a prompt and its negative prompt out in windows."""

    def __call__(
        self,
        prompt: Sequence[Segment],
        negative_prompt: Sequence[Segment],
        special: SpecialTokens,
    ) -> ChunkedPair:
        """Chunk both; each gets at least one window."""


def chunk_lpw(
    prompt: Sequence[Segment], negative_prompt: Sequence[Segment], special: SpecialTokens
) -> ChunkedPair:
    """Cut hard at 75 tokens; the shorter prompt is filled up with EOS, the last window is not.

    Both come out with the same number of positions, which stock SDXL pipelines demand, and an
    encoder never sees its padding token, only EOS. Two empty prompts are one window `BOS EOS`
    each. The pooled vectors: the prompt's own last window that holds text, so that a long
    negative prompt doesn't replace it by that of the empty string (as it does in the community
    pipeline); the negative prompt's last window, padding or not (as there).
    """
    layouts = [_lay_out(segments, special) for segments in (prompt, negative_prompt)]
    length = max(len(layout.tokens) for layout in layouts)
    positive, negative = (_cut(layout, length, special) for layout in layouts)
    last_text = max(_count_text_windows(positive) - 1, 0)
    return ChunkedPair(
        TokenChunks(positive, pooled_window=last_text),
        TokenChunks(negative, pooled_window=len(negative) - 1),
    )


CHUNKINGS: Mapping[PromptStyle, Chunking] = {PromptStyle.LPW: chunk_lpw}


class Tokenizer(Protocol):
    """What chunking asks of an encoder's tokenizer."""

    special: SpecialTokens

    def ids(self, text: str) -> Sequence[int]:
        """Return a text's ids, without BOS, EOS, padding and truncation."""


def chunk_pair(
    prompt: Prompt, negative_prompt: Prompt, style: PromptStyle, tokenizer: Tokenizer
) -> ChunkedPair:
    """Tokenise and chunk a pair of prompts as a style does."""
    return CHUNKINGS[style](
        tokenize(prompt, tokenizer.ids),
        tokenize(negative_prompt, tokenizer.ids),
        tokenizer.special,
    )


def _count_text_windows(windows: Sequence[Window]) -> int:
    return max((index for index, window in enumerate(windows, 1) if window.text_count), default=0)


class _Layout(NamedTuple):
    tokens: list[WeightedToken]
    is_text: list[bool]  # False for padding


def _lay_out(segments: Sequence[Segment], special: SpecialTokens) -> _Layout:
    """Join the segments so that each begins a window.

    What a break cuts off is filled up with EOS to a full window. So the rest of the layout can
    go by position alone, and a prompt and its negative prompt keep equal lengths whatever breaks
    either has. A break where a window is empty anyway (leading, doubled, after exactly 75
    tokens) adds none.
    """
    layout = _Layout([], [])
    for index, segment in enumerate(segments):
        if index > 0:
            _pad(layout, -len(layout.tokens) % WINDOW_TOKENS, special)
        layout.tokens.extend(segment)
        layout.is_text.extend([True] * len(segment))
    return layout


def _pad(layout: _Layout, count: int, special: SpecialTokens) -> None:
    layout.tokens.extend([WeightedToken(special.eos, 1.0)] * count)
    layout.is_text.extend([False] * count)


def _cut(layout: _Layout, length: int, special: SpecialTokens) -> tuple[Window, ...]:
    _pad(layout, length - len(layout.tokens), special)
    text_before = [0, *accumulate(layout.is_text)]
    windows = []
    for start in range(0, max(length, 1), WINDOW_TOKENS):
        end = min(start + WINDOW_TOKENS, length)
        tokens = layout.tokens[start:end]
        windows.append(
            Window(
                ids=(special.bos, *(token.id for token in tokens), special.eos),
                weights=(1.0, *(token.weight for token in tokens), 1.0),
                text_count=text_before[end] - text_before[start],
            )
        )
    return tuple(windows)
