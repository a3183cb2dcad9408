"""CLIP's tokenizer as this package uses it: plain ids, no special tokens, no truncation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from transformers import CLIPTokenizer

from lpw_sdxl.conditioning.pieces import TokenPiece, split_into_pieces
from lpw_sdxl.conditioning.windows import SpecialTokens


class ClipTokenizer:
    """Text to ids and back; holds no state between calls.

    It asks the tokenizers library directly: Transformers' own call warns of every text over 77
    tokens. `<|endoftext|>` or `<|startoftext|>` in a text becomes that token, as it does there.
    """

    places_in_embeddings: Mapping[int, int] = MappingProxyType({})  # it knows none

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        # A tokenizer.json may have been saved with either.
        self._backend.no_truncation()
        self._backend.no_padding()
        self.special = SpecialTokens(
            tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        )

    @classmethod
    def from_directory(cls, path: Path) -> ClipTokenizer:
        """Load vocab.json and merges.txt, or tokenizer.json."""
        return cls(CLIPTokenizer.from_pretrained(path, local_files_only=True))

    @property
    def size(self) -> int:
        """Entries of the vocabulary; every id is below it."""
        return len(self._tokenizer)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text of any length, without BOS and EOS."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def pieces(self, text: str) -> list[TokenPiece]:
        """Return a text's tokens with their places in it."""
        return split_into_pieces(self._backend, text)

    def text(self, ids: list[int]) -> str:
        """Return what the ids say: lower case, white space collapsed, special tokens left out."""
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
