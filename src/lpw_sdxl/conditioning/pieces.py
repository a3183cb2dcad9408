"""A text's tokens with their places in it, as the tokenizers library tells them; no torch."""

from __future__ import annotations

from typing import NamedTuple

from tokenizers import Tokenizer


class TokenPiece(NamedTuple):
    """A token and the characters that it stands for.

    Attributes:
        id: in the vocabulary.
        start: of its first character in the text. The tokens of one character share its place.
        end: one past the last.
        starts_word: whether it begins a word; the rest of the word follows it.
        embedding: name of the embedding that it is a vector of; None for text.
    """

    id: int
    start: int
    end: int
    starts_word: bool
    embedding: str | None = None


def split_into_pieces(tokenizer: Tokenizer, text: str) -> list[TokenPiece]:
    """Tokenise a text, without BOS and EOS."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    words = encoding.word_ids
    return [
        TokenPiece(id_, *encoding.offsets[index], index == 0 or words[index] != words[index - 1])
        for index, id_ in enumerate(encoding.ids)
    ]
