"""CLIP's tokenizer built from its merges alone: no model, no files, no torch or Transformers.

`tokenizer.ClipTokenizer` is what serves: it reads a model's own files. This one gives the same ids
(a test compares them) and starts in a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from lpw_sdxl.conditioning.pieces import TokenPiece, split_into_pieces
from lpw_sdxl.conditioning.windows import SpecialTokens

_WORD_END = "</w>"
# CLIP's words: Radford et al., 2021, `simple_tokenizer.py`.
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class VocabularyTokenizer:
    """Text to ids and back; holds no state between calls."""

    places_in_embeddings: Mapping[int, int] = MappingProxyType({})  # it knows none

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[str],
        *,
        start_token: str,
        end_token: str,
        pad_token: str,
    ) -> None:
        """Build one encoder's tokenizer.

        Args:
            vocabulary: every token's id.
            merges: two symbols with a blank between, most frequent first.
            start_token: opens a window.
            end_token: closes one, and stands for what is in no vocabulary.
            pad_token: fills one. Like the others it is a token wherever a text holds it, so `!`
                is another token for SDXL's second encoder, which pads with it, than for its first.
        """
        self._backend = Tokenizer(
            BPE(
                vocab=dict(vocabulary),
                merges=[(first, second) for first, _, second in map(_partition, merges)],
                end_of_word_suffix=_WORD_END,
                unk_token=end_token,
            )
        )
        self._backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        specials = "|".join(token.replace("|", r"\|") for token in (start_token, end_token))
        self._backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(f"{specials}|{_WORD}"), "removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        self._backend.decoder = decoders.ByteLevel()
        self._backend.add_special_tokens(
            [AddedToken(token, normalized=token != pad_token) for token in (start_token, end_token)]
            + [AddedToken(pad_token, normalized=False)]
        )
        self.special = SpecialTokens(
            vocabulary[start_token], vocabulary[end_token], vocabulary[pad_token]
        )

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text of any length, without BOS and EOS."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def pieces(self, text: str) -> list[TokenPiece]:
        """Return a text's tokens with their places in it."""
        return split_into_pieces(self._backend, text)

    def text(self, ids: list[int]) -> str:
        """Return what the ids say: lower case, white space collapsed, special tokens left out."""
        text: str = self._backend.decode(ids, skip_special_tokens=True)
        return text.replace(_WORD_END, " ").strip()


def _partition(merge: str) -> tuple[str, str, str]:
    return merge.partition(" ")
