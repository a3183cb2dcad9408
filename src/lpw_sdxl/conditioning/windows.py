"""What a text encoder reads: windows of at most 77 weighted ids; no styles, no tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WINDOW_TOKENS = 75
"""Tokens of text in a full window; with BOS and EOS it has CLIP's 77 positions."""


class SpecialTokens(NamedTuple):
    """The ids that open, close and fill a window, as one encoder's tokenizer gives them."""

    bos: int
    eos: int
    pad: int


class WeightedToken(NamedTuple):
    """A token of the text.

    Attributes:
        id: in the vocabulary.
        weight: of the span that it came from.
        starts_word: whether a chunk may begin with it without splitting a word.
        is_comma: whether it is the token `,`.
        place_in_embedding: vectors of its embedding that stand before it; 0 for text too.
    """

    id: int
    weight: float
    starts_word: bool = True
    is_comma: bool = False
    place_in_embedding: int = 0


Segment = tuple[WeightedToken, ...]
"""The tokens between two breaks, or those of one chunk: up to 75."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a text encoder reads in one pass.

    Attributes:
        ids: BOS, up to 75 ids, EOS, padding; at most 77.
        weights: one for each id; 1 for BOS, EOS and padding.
        text_count: ids that came from the prompt's text; they follow BOS, padding follows them.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    text_count: int


Windows = tuple[Window, ...]
Fit = Callable[[Sequence[Sequence[Segment]], SpecialTokens], Iterator[Windows]]
"""How chunks become windows, of a prompt and its negative prompt together."""
PooledChoice = Callable[[Windows], int]
"""Which window gives the pooled vector: its index."""
Padding = Callable[[tuple[int, ...], int, SpecialTokens], tuple[int, ...]]
"""What fills a window: `(ids filled with EOS, ids up to the text's end, special)` to ids."""


def fit_pair(prompts: Sequence[Sequence[Segment]], special: SpecialTokens) -> Iterator[Windows]:
    """Give both prompts the same number of positions: the longer one's, its last window unfilled.

    Every window but a prompt's last is filled up with EOS; so is what the shorter prompt lacks. The
    encoders never see their padding token. Without any text a window is `BOS EOS`.
    """
    length = max(map(_position_count, prompts))
    full, rest = divmod(length, WINDOW_TOKENS)
    sizes = [WINDOW_TOKENS] * full + ([rest] if rest or not full else [])
    for chunks in prompts:
        filled = [*chunks, *[()] * (len(sizes) - len(chunks))]
        # A prompt may end in a chunk without text, which takes no window.
        yield tuple(
            _window(tokens, size, special, _pad_with_eos)
            for tokens, size in zip(filled, sizes, strict=False)
        )


def fit_alone_padded_after_text(
    prompts: Sequence[Sequence[Segment]], special: SpecialTokens
) -> Iterator[Windows]:
    """Fill each window to 77 with the encoder's own padding, behind an EOS behind the text."""
    return _fit_alone(prompts, special, _pad_after_text)


def fit_alone_padded_after_eos(
    prompts: Sequence[Sequence[Segment]], special: SpecialTokens
) -> Iterator[Windows]:
    """Fill each window to 77; whatever follows its first EOS becomes the encoder's own padding.

    It differs from `fit_alone_padded_after_text` only where the text itself holds
    `<|endoftext|>`: an encoder whose padding is not EOS then reads nothing behind it.
    """
    return _fit_alone(prompts, special, _pad_after_eos)


def first_window(_: Windows) -> int:
    """Take the pooled vector of the first window."""
    return 0


def last_of_text(windows: Windows) -> int:
    """Take the pooled vector of the last window with any text, or the first."""
    return max((index for index, window in enumerate(windows) if window.text_count), default=0)


def last_window(windows: Windows) -> int:
    """Take the pooled vector of the last window."""
    return len(windows) - 1


def _position_count(chunks: Sequence[Segment]) -> int:
    return WINDOW_TOKENS * (len(chunks) - 1) + len(chunks[-1])


def _fit_alone(
    prompts: Sequence[Sequence[Segment]], special: SpecialTokens, padding: Padding
) -> Iterator[Windows]:
    for chunks in prompts:
        yield tuple(_window(tokens, WINDOW_TOKENS, special, padding) for tokens in chunks)


def _window(tokens: Segment, size: int, special: SpecialTokens, padding: Padding) -> Window:
    room = size - len(tokens)
    ids = (special.bos, *(token.id for token in tokens), *[special.eos] * (1 + room))
    return Window(
        ids=padding(ids, 1 + len(tokens), special),
        weights=(1.0, *(token.weight for token in tokens), *[1.0] * (1 + room)),
        text_count=len(tokens),
    )


def _pad_with_eos(ids: tuple[int, ...], _: int, __: SpecialTokens) -> tuple[int, ...]:
    return ids


def _pad_after_text(ids: tuple[int, ...], text_end: int, special: SpecialTokens) -> tuple[int, ...]:
    kept = ids[: text_end + 1]
    return kept + (special.pad,) * (len(ids) - len(kept))


def _pad_after_eos(ids: tuple[int, ...], _: int, special: SpecialTokens) -> tuple[int, ...]:
    if special.pad == special.eos:
        return ids
    return _pad_after_text(ids, ids.index(special.eos), special)
