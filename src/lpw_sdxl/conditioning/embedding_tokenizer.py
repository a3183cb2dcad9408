"""A tokenizer with names of embeddings, whose ids follow its vocabulary; no tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lpw_sdxl.conditioning.mentions import MentionFinder, MentionForm
from lpw_sdxl.conditioning.prompt_tokenizer import PromptTokenizer
from lpw_sdxl.conditioning.tokenizer import TokenPiece


class EmbeddingTokenizer:
    """Text to ids and back; a name becomes as many ids as its embedding has vectors.

    The texts before a name and behind it are tokenised one by one.
    """

    def __init__(
        self,
        plain: PromptTokenizer,
        ids: Mapping[str, range],
        form: MentionForm,
    ) -> None:
        """Take the embeddings' names.

        Args:
            plain: for all other text.
            ids: of each embedding's vectors, by its name; above all ids of the vocabulary.
            form: how texts name embeddings.
        """
        self.special = plain.special
        self._plain = plain
        self._finder = MentionFinder(ids, form)
        self._ids = ids
        self._vectors = {
            id_: _Vector(name, place)
            for name, ids in self._ids.items()
            for place, id_ in enumerate(ids)
        }
        self.places_in_embeddings = {id_: vector.place for id_, vector in self._vectors.items()}
        self.embedding_names = {id_: vector.name for id_, vector in self._vectors.items()}

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text of any length, without BOS and EOS."""
        ids: list[int] = []
        for part in self._split(text):
            ids += self._plain.ids(part.text) if part.name is None else self._ids[part.name]
        return ids

    def vector_count(self, text: str) -> int:
        """Count the tokens that embeddings take in a text, without making any."""
        return sum(len(self._ids[mention.name]) for mention in self._finder.find(text))

    def pieces(self, text: str) -> list[TokenPiece]:
        """Return a text's tokens with their places in it; an embedding's share its name's place."""
        return [piece for part in self._split(text) for piece in self._place(part)]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text that ids stand for, with the names of embeddings, also of cut ones."""
        words: list[str] = []
        plain: list[int] = []
        for index, id_ in enumerate(ids):
            vector = self._vectors.get(id_)
            if vector is None:
                plain.append(id_)
            elif not vector.place or not index or ids[index - 1] != id_ - 1:
                words += [self._plain.text(plain), vector.name]
                plain = []
        return " ".join(filter(None, [*words, self._plain.text(plain)]))

    def _split(self, text: str) -> Iterator[_Part]:
        end = 0
        for mention in self._finder.find(text):
            yield _Part(text[end : mention.start], end)
            yield _Part(text[mention.start : mention.end], mention.start, mention.name)
            end = mention.end
        yield _Part(text[end:], end)

    def _place(self, part: _Part) -> Iterator[TokenPiece]:
        if part.name is None:
            for piece in self._plain.pieces(part.text):
                start, end = piece.start + part.start, piece.end + part.start
                yield piece._replace(start=start, end=end)
        else:
            end = part.start + len(part.text)
            for place, id_ in enumerate(self._ids[part.name]):
                yield TokenPiece(id_, part.start, end, place == 0, part.name)


class _Vector(NamedTuple):
    """A vector of an embedding, for which an id stands."""

    name: str
    place: int  # vectors of the embedding before it


class _Part(NamedTuple):
    """A piece of a text: all of it a name, or none of it."""

    text: str
    start: int
    name: str | None = None
