"""CLIP's tokenizer as this package uses it: plain ids, no special tokens, no truncation; no torch.

It calls the tokenizers library directly: Transformers' own call warns of every text over 77 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from lpw_sdxl.conditioning.windows import SpecialTokens

_WORD_END = "</w>"
# CLIP's words: Radford et al., 2021, `simple_tokenizer.py`.
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class TokenPiece(NamedTuple):
    """A token and the place of its characters.

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


class ClipTokenizer:
    """Text to ids and back, without embeddings; it holds no state between calls.

    `<|endoftext|>` or `<|startoftext|>` in a text becomes that token, as in Transformers.
    """

    places_in_embeddings: Mapping[int, int] = MappingProxyType({})
    embedding_names: Mapping[int, str] = MappingProxyType({})

    def __init__(self, backend: Tokenizer, special: SpecialTokens) -> None:
        self._backend = backend
        # A tokenizer.json may have been saved with either.
        backend.no_truncation()
        backend.no_padding()
        self.special = special

    @classmethod
    def from_directory(cls, path: Path) -> ClipTokenizer:
        """Load a model's vocab.json and merges.txt, or its tokenizer.json."""
        from transformers import CLIPTokenizer  # noqa: PLC0415 - brings torch

        loaded = CLIPTokenizer.from_pretrained(path, local_files_only=True)
        special = SpecialTokens(loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id)
        return cls(loaded.backend_tokenizer, special)

    @classmethod
    def from_merges(
        cls, vocabulary: Mapping[str, int], merges: Sequence[str], special_tokens: Sequence[str]
    ) -> ClipTokenizer:
        """Build the tokenizer that `from_directory` would load, in a tenth of a second.

        Args:
            vocabulary: every token's id.
            merges: two symbols with a blank between, most frequent first.
            special_tokens: open, close and fill a window; the second also stands for text that is
                in no vocabulary. Each is a token wherever a text holds it, so `!` is another token
                for SDXL's second encoder, which pads with it, than for its first.
        """
        start, end, pad = special_tokens
        symbols = (merge.split(" ") for merge in merges)
        model = BPE(
            vocab=dict(vocabulary),
            merges=[(first, second) for first, second in symbols],
            end_of_word_suffix=_WORD_END,
            unk_token=end,
        )
        backend = Tokenizer(model)
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        pattern = "|".join([*(token.replace("|", r"\|") for token in (start, end)), _WORD])
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        added = [AddedToken(token, normalized=token != pad) for token in special_tokens]
        backend.add_special_tokens(added)
        return cls(backend, SpecialTokens(*(vocabulary[token] for token in special_tokens)))

    @property
    def size(self) -> int:
        """Count the entries of the vocabulary; every id is below it."""
        return int(self._backend.get_vocab_size())

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text of any length, without BOS and EOS."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def vector_count(self, text: str) -> int:  # noqa: ARG002 - of the Protocol
        """Count none: without embeddings there are no vectors."""
        return 0

    def pieces(self, text: str) -> list[TokenPiece]:
        """Return a text's tokens with their places in it."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        before = [-1, *encoding.word_ids]
        rows = zip(encoding.ids, encoding.offsets, encoding.word_ids, before, strict=False)
        return [TokenPiece(id_, *place, word != last) for id_, place, word, last in rows]

    def text(self, ids: Sequence[int]) -> str:
        """Return the ids' text in lower case, white space collapsed, without special tokens."""
        text: str = self._backend.decode(ids, skip_special_tokens=True)
        return text.replace(_WORD_END, " ").strip()
