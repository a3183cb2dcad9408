"""Windows of at most 77 weighted ids, as a text encoder reads them; no styles, no tensors."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WINDOW_TOKENS = 75
"""Tokens of text in a full window; with BOS and EOS it has CLIP's 77 positions."""


class SpecialTokens(NamedTuple):
    """The ids that open, close and fill a window, of one encoder's tokenizer."""

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


_ID = "i"  # array's code of a 32-bit integer
_WEIGHT = "f"  # and of a float32, in which emphasis is computed

PackedIds = bytes
"""A window's ids, 4 bytes each: a tenth of a tuple of integers, and as good a key."""


@dataclass(frozen=True, slots=True)
class Window:
    """One pass of a text encoder, packed: a queue holds the windows of hundreds of jobs.

    Attributes:
        packed_ids: BOS, up to 75 ids, EOS, padding; at most 77.
        packed_weights: one for each id, float32; empty where each is 1.
        text_count: ids that came from the prompt's text; they follow BOS, padding follows them.
    """

    packed_ids: PackedIds
    packed_weights: bytes
    text_count: int

    @classmethod
    def pack(cls, ids: Sequence[int], weights: Sequence[float], text_count: int) -> Window:
        """Build a window from ids and as many weights; those of BOS, EOS and padding are 1."""
        is_weighted = any(weight != 1.0 for weight in weights)
        return cls(
            array(_ID, ids).tobytes(),
            array(_WEIGHT, weights).tobytes() if is_weighted else b"",
            text_count,
        )

    @property
    def length(self) -> int:
        """Count the positions that the encoder reads."""
        return len(self.packed_ids) // array(_ID).itemsize

    @property
    def ids(self) -> tuple[int, ...]:
        """Unpack all ids."""
        return unpack_ids(self.packed_ids)

    @property
    def text_ids(self) -> tuple[int, ...]:
        """Unpack the ids that came from the prompt's text."""
        return self.ids[1 : 1 + self.text_count]

    @property
    def weights(self) -> tuple[float, ...]:
        """Unpack the weights, rounded to float32; one for each id."""
        if not self.packed_weights:
            return (1.0,) * self.length
        return tuple(array(_WEIGHT, self.packed_weights))

    @property
    def nbytes(self) -> int:
        """Count the bytes that the window takes in memory."""
        return sum(map(sys.getsizeof, (self, self.packed_ids, self.packed_weights)))


def unpack_ids(packed: PackedIds) -> tuple[int, ...]:
    """Unpack a window's ids."""
    return tuple(array(_ID, packed))


Windows = tuple[Window, ...]
Fit = Callable[[Sequence[Sequence[Segment]], SpecialTokens], Iterator[Windows]]
"""The way from chunks to windows, of a prompt and its negative prompt together."""
PooledChoice = Callable[[Windows], int]
"""The index of the window that gives the pooled vector."""
Padding = Callable[[tuple[int, ...], int, SpecialTokens], tuple[int, ...]]
"""The filling of a window: `(ids filled with EOS, ids up to the text's end, special)` to ids."""


def fit_pair(prompts: Sequence[Sequence[Segment]], special: SpecialTokens) -> Iterator[Windows]:
    """Fit both prompts to the same number of positions: the longer one's, its last window unfilled.

    Every window but a prompt's last is filled up with EOS; so are the windows that the shorter
    prompt lacks. The encoders never read their padding token. Without any text a window is
    `BOS EOS`.
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
    """Fill each window to 77; all that follows its first EOS becomes the encoder's own padding.

    It differs from `fit_alone_padded_after_text` only where the text itself holds
    `<|endoftext|>`: an encoder whose padding is not EOS then reads only padding behind it.
    """
    return _fit_alone(prompts, special, _pad_after_eos)


def first_window(_: Windows) -> int:
    """Choose the first window."""
    return 0


def last_of_text(windows: Windows) -> int:
    """Choose the last window with any text, or the first where none has any."""
    return max((index for index, window in enumerate(windows) if window.text_count), default=0)


def last_window(windows: Windows) -> int:
    """Choose the last window."""
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
    weights = (1.0, *(token.weight for token in tokens), *[1.0] * (1 + room))
    return Window.pack(padding(ids, 1 + len(tokens), special), weights, len(tokens))


def _pad_with_eos(ids: tuple[int, ...], _: int, __: SpecialTokens) -> tuple[int, ...]:
    return ids


def _pad_after_text(ids: tuple[int, ...], text_end: int, special: SpecialTokens) -> tuple[int, ...]:
    kept = ids[: text_end + 1]
    return kept + (special.pad,) * (len(ids) - len(kept))


def _pad_after_eos(ids: tuple[int, ...], _: int, special: SpecialTokens) -> tuple[int, ...]:
    if special.pad == special.eos:
        return ids
    return _pad_after_text(ids, ids.index(special.eos), special)
