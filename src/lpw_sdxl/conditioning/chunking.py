"""Parsed prompts to chunks: windows of at most 77 ids with their weights; it knows no tensors.

A prompt and its negative prompt are taken together, because a style may fit one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import NamedTuple, Protocol

from lpw_sdxl.conditioning.cutting import cut, tokenize
from lpw_sdxl.conditioning.styles import STYLES, StyleRules
from lpw_sdxl.conditioning.windows import (
    PooledChoice,
    SpecialTokens,
    Window,
    Windows,
    last_of_text,
)
from lpw_sdxl.prompt import Prompt, PromptStyle


@dataclass(frozen=True, slots=True)
class TokenChunks:
    """One prompt's windows, in order.

    Attributes:
        windows: at least one.
        pooled_window: index of the window that the pooled vector is taken from.
        own_windows: number of those that the prompt itself needs; the others behind them are
            padding to the other prompt's length.
    """

    windows: Windows
    pooled_window: int
    own_windows: int

    @property
    def token_count(self) -> int:
        """Count the tokens of the prompt's own text, in all windows."""
        return sum(window.text_count for window in self.windows)


class ChunkedPair(NamedTuple):
    """A prompt and its negative prompt, chunked together."""

    prompt: TokenChunks
    negative_prompt: TokenChunks


class Tokenizer(Protocol):
    """The part of an encoder's tokenizer that chunking needs."""

    special: SpecialTokens

    @property
    def places_in_embeddings(self) -> Mapping[int, int]:
        """Return, by each id that is an embedding's, how many of its vectors stand before."""

    def ids(self, text: str) -> Sequence[int]:
        """Return a text's ids, without BOS, EOS, padding and truncation."""


def chunk_pair(
    prompt: Prompt, negative_prompt: Prompt, style: PromptStyle, tokenizer: Tokenizer
) -> ChunkedPair:
    """Tokenise and chunk a pair of prompts as a style does, each into at least one window."""
    rules = STYLES[style]
    cuts = [
        cut(
            tokenize(one, tokenizer.ids, rules.split, tokenizer.places_in_embeddings),
            rules.border,
            keeps_empty=rules.keeps_empty_chunks,
        )
        for one in (prompt, negative_prompt)
    ]
    sides = zip(rules.fit(cuts, tokenizer.special), rules.pooled, strict=True)
    return ChunkedPair(
        *(
            TokenChunks(windows, pooled(windows), _count_own(windows, rules))
            for windows, pooled in sides
        )
    )


def chunk_for_encoders(
    prompt: Prompt, negative_prompt: Prompt, style: PromptStyle, tokenizers: Sequence[Tokenizer]
) -> tuple[ChunkedPair, ...]:
    """Chunk a pair of prompts for several encoders, whose windows come out with equal lengths.

    The tokenizers may differ: a token that one of them pads with is split off wherever a text
    holds it, so that `!!` is one token for SDXL's first encoder and two for its second. Windows
    that one encoder then lacks are filled up as an empty prompt is.

    Returns:
        One pair for each encoder; equal windows are one object, which saves half of a long
        prompt's memory.
    """
    pairs = [chunk_pair(prompt, negative_prompt, style, tokenizer) for tokenizer in tokenizers]
    specials = [tokenizer.special for tokenizer in tokenizers]
    sides = [
        _align(side, style, specials, pooled)
        for side, pooled in zip(zip(*pairs, strict=True), STYLES[style].pooled, strict=True)
    ]
    shared: dict[Window, Window] = {}
    return tuple(
        ChunkedPair(*(_share(chunks, shared) for chunks in pair))
        for pair in zip(*sides, strict=True)
    )


def empty_window(style: PromptStyle, special: SpecialTokens) -> Window:
    """Build the window of a style's empty prompt."""
    [window] = next(STYLES[style].fit([[()]], special))
    return window


def _share(chunks: TokenChunks, shared: dict[Window, Window]) -> TokenChunks:
    """Replace windows by equal ones that were shared before, and share the others."""
    windows = tuple(shared.setdefault(window, window) for window in chunks.windows)
    return replace(chunks, windows=windows)


def _align(
    side: Sequence[TokenChunks],
    style: PromptStyle,
    specials: Sequence[SpecialTokens],
    pooled: PooledChoice,
) -> tuple[TokenChunks, ...]:
    """Widen one prompt's windows to the same lengths for all encoders."""
    shapes = [[window.length for window in chunks.windows] for chunks in side]
    if all(shape == shapes[0] for shape in shapes):
        return tuple(side)
    sizes = [max(column) for column in zip_longest(*shapes, fillvalue=0)]
    own = max(chunks.own_windows for chunks in side)
    widened = (
        _widen(chunks.windows, sizes, style, special)
        for chunks, special in zip(side, specials, strict=True)
    )
    return tuple(TokenChunks(windows, pooled(windows), own) for windows in widened)


def _widen(
    windows: Windows, sizes: Sequence[int], style: PromptStyle, special: SpecialTokens
) -> Windows:
    filled = (*windows, *[empty_window(style, special)] * (len(sizes) - len(windows)))
    return tuple(
        _widen_one(window, size, special) for window, size in zip(filled, sizes, strict=True)
    )


def _widen_one(window: Window, size: int, special: SpecialTokens) -> Window:
    room = size - window.length
    return Window.pack(
        window.ids + (special.eos,) * room, window.weights + (1.0,) * room, window.text_count
    )


def _count_own(windows: Windows, rules: StyleRules) -> int:
    return len(windows) if rules.keeps_empty_chunks else last_of_text(windows) + 1
