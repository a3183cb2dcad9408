"""The few words that the demo's text encoders learn, and captions as windows of token ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import CLIPTokenizer

from demo.captions import BREAK, FILLER, MAX_WINDOWS, MEANINGS, WINDOW_TOKENS, WORDS, Caption
from lpw_sdxl.checkpoint.architecture import CLIP_TOKENS
from lpw_sdxl.checkpoint.tokenizer_files import END_TOKEN, MAX_LENGTH, START_TOKEN, write_tokenizer

NOTHING = 0
"""Label of a token that states no attribute."""


class Vocabulary:
    """The token ids of WORDS; every other token's embedding is zero.

    Attributes:
        ids: sorted; row k + 1 of a table of embeddings is that of the id at place k.
        bos, eos: CLIP's own.
        filler: an id that is none of them.
    """

    def __init__(self) -> None:
        with TemporaryDirectory() as folder:
            write_tokenizer(Path(folder), pad_token=END_TOKEN)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.bos, self.eos = tokenizer.convert_tokens_to_ids([START_TOKEN, END_TOKEN])
        self._ids_of = {
            word: tuple(tokenizer(word, add_special_tokens=False)["input_ids"])
            for word in sorted(WORDS)
        }
        known = {id_ for ids in self._ids_of.values() for id_ in ids}
        self.ids = sorted({self.bos, self.eos} | known)
        self.filler = next(id_ for id_ in range(1000, CLIP_TOKENS[0]) if id_ not in known)

    def tokens(self, word: str) -> tuple[int, ...]:
        """Return the ids of one of WORDS, or of FILLER."""
        return (self.filler,) if word == FILLER else self._ids_of[word]


@dataclass(frozen=True)
class Windows:
    """A caption as a text encoder reads it.

    Attributes:
        ids: int64 `[n, 77]`, padded with EOS.
        labels: int64 `[n, 77]`; which attribute's value a token states (its index in MEANINGS,
            counted from 1), or NOTHING.
        length: positions up to the last window's EOS, which the service leaves unfilled.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    length: int


def lay_out(caption: Caption, vocabulary: Vocabulary, empty_windows: int = 0) -> Windows:
    """Lay a caption out as the service does; words that do not fit into MAX_WINDOWS are left out.

    Args:
        caption: the words.
        vocabulary: maps words to ids.
        empty_windows: that follow, as they do where the other prompt of a pair is longer.
    """
    segments = [
        list(_labelled(caption, words, vocabulary))
        for is_break, words in groupby(caption.words, BREAK.__eq__)
        if not is_break
    ] or [[]]
    chunks = [
        segment[start : start + WINDOW_TOKENS]
        for segment in segments
        for start in range(0, max(1, len(segment)), WINDOW_TOKENS)
    ]
    chunks = (chunks + [[]] * empty_windows)[:MAX_WINDOWS]
    ids = torch.full((len(chunks), MAX_LENGTH), vocabulary.eos)
    labels = torch.full((len(chunks), MAX_LENGTH), NOTHING)
    ids[:, 0] = vocabulary.bos
    for window, chunk in enumerate(chunks):
        if chunk:
            columns = torch.tensor(chunk).T
            ids[window, 1 : 1 + len(chunk)], labels[window, 1 : 1 + len(chunk)] = columns
    last = MAX_LENGTH if empty_windows else len(chunks[-1]) + 2
    return Windows(ids, labels, (len(chunks) - 1) * MAX_LENGTH + last)


def _labelled(
    caption: Caption, words: Iterator[str], vocabulary: Vocabulary
) -> Iterator[tuple[int, int]]:
    """Yield each token's id and label."""
    labels = {
        word: label
        for label, (name, value, spellings) in enumerate(MEANINGS, start=1)
        if caption.stated.get(name) == value
        for word in spellings
    }
    for word in words:
        label = labels.get(word, NOTHING)
        yield from ((id_, label) for id_ in vocabulary.tokens(word))


class WordEmbedding(torch.nn.Module):
    """Token embeddings that are learned for a vocabulary's ids and zero for all others.

    Attributes:
        rows: `[1 + ids, width]`; the first is not used.
    """

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        super().__init__()
        self.rows = torch.nn.Parameter(torch.randn(1 + len(vocabulary.ids), width) * 0.5)
        places = torch.zeros(CLIP_TOKENS[0], dtype=torch.int64)
        places[vocabulary.ids] = torch.arange(1, 1 + len(vocabulary.ids))
        self.places: torch.Tensor
        self.register_buffer("places", places, persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed ids: `[…]` to `[…, width]`."""
        places = self.places[ids]
        return torch.where((places > 0).unsqueeze(-1), self.rows[places], 0.0)

    @torch.no_grad()
    def take_table(self, table: torch.Tensor) -> None:
        """Load the words' rows from a table of all of CLIP's tokens, `[49408, width]`."""
        self.rows[self.places[self.places > 0]] = table[self.places > 0]

    @torch.no_grad()
    def full_table(self) -> torch.Tensor:
        """Return the table of all of CLIP's tokens, `[49408, width]`."""
        table: torch.Tensor = self(torch.arange(CLIP_TOKENS[0]))
        return table
