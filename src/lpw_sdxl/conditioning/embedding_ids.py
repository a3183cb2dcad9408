"""The ids that stand for embeddings' vectors, while embeddings come and go."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from weakref import WeakKeyDictionary, WeakValueDictionary

from torch import Tensor

from lpw_sdxl.conditioning.embeddings import Embedding


class EmbeddingIds:
    """Ids above a vocabulary's, one for each vector; for any number of threads at a time.

    An embedding keeps its ids as long as anyone has it, a job under way too. No id is ever given
    twice: what was encoded with an earlier embedding of a name is not found with a later one.

    Args:
        first: the first id; above all ids of the vocabulary.
    """

    def __init__(self, first: int) -> None:
        self._next = first
        self._first = first
        self._ids: WeakKeyDictionary[Embedding, range] = WeakKeyDictionary()
        self._by_id: WeakValueDictionary[int, Embedding] = WeakValueDictionary()
        self._lock = threading.Lock()

    def number(self, embeddings: Iterable[Embedding]) -> Mapping[str, range]:
        """Return the ids of each embedding's vectors, by its name."""
        with self._lock:
            return {one.name: self._ids.get(one) or self._give(one) for one in embeddings}

    def vectors(self, ids: Iterable[int], encoder: int) -> dict[int, Tensor]:
        """Return the vectors that ids above the vocabulary's stand for.

        Args:
            ids: of any kind; those of the vocabulary are left out.
            encoder: index of the text encoder whose vectors are meant.

        Returns:
            by the id: [width].
        """
        found = {}
        for id_ in {id_ for id_ in ids if id_ >= self._first}:
            with self._lock:
                embedding = self._by_id[id_]
                place = id_ - self._ids[embedding].start
            found[id_] = embedding.vectors[encoder][place]
        return found

    def _give(self, embedding: Embedding) -> range:
        ids = range(self._next, self._next + embedding.vector_count)
        self._next = ids.stop
        self._ids[embedding] = ids
        self._by_id.update(dict.fromkeys(ids, embedding))
        return ids
