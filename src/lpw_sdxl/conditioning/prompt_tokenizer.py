"""The tokenizer of one text encoder as reading prompts needs it: an interface, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lpw_sdxl.conditioning.chunking import Tokenizer
from lpw_sdxl.conditioning.tokenizer import TokenPiece


class PromptTokenizer(Tokenizer, Protocol):
    """A tokenizer that counts, places and names, too."""

    @property
    def embedding_names(self) -> Mapping[int, str]:
        """Return, by each id that is an embedding's, its name."""

    def vector_count(self, text: str) -> int:
        """Count the tokens that embeddings take in a text, without making any."""

    def pieces(self, text: str) -> Sequence[TokenPiece]:
        """Return a text's tokens with their places in it."""

    def text(self, ids: Sequence[int]) -> str:
        """Return the text that ids stand for."""
