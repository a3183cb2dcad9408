"""Windows to hidden states by all encoders: each distinct one once, and none encoded lately."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from lpw_sdxl.conditioning.assembly import EncodedWindows
from lpw_sdxl.conditioning.cache import ByteCache, CacheCounters, key_bytes
from lpw_sdxl.conditioning.clip import ClipTextEncoder, EncodedWindow, count_bytes
from lpw_sdxl.conditioning.embedding_ids import EmbeddingIds
from lpw_sdxl.conditioning.plan import Plan, WindowKey
from lpw_sdxl.conditioning.windows import PackedIds, unpack_ids


class WindowEncoder:
    """The encoders of one model with a bounded cache of encoded windows; for one thread."""

    def __init__(
        self, encoders: Sequence[ClipTextEncoder], cache_bytes: int, embeddings: EmbeddingIds
    ) -> None:
        """Take the encoders.

        Args:
            encoders: of the model.
            cache_bytes: of windows that are cached, at most; 0 caches none.
            embeddings: that windows may name; the caller of `encode` keeps them meanwhile.
        """
        self._encoders = tuple(encoders)
        self._embeddings = embeddings
        self._cache: ByteCache[_StoredKey, EncodedWindow] = ByteCache(cache_bytes)

    @property
    def counters(self) -> CacheCounters:
        """Return the cache's counters; a window counts for each encoder."""
        return self._cache.counters

    def encode(self, plans: Sequence[Plan], weights_key: Hashable) -> list[EncodedWindows]:
        """Encode all windows that the plans name, in as few calls as their memory allows.

        Args:
            plans: of pairs of prompts.
            weights_key: a name of the weights that the encoders hold now.

        Returns:
            For each encoder the windows that the plans name.
        """
        return [
            self._encode_with(
                index,
                dict.fromkeys(key for plan in plans for key in plan.windows(index)),
                weights_key,
            )
            for index in range(len(self._encoders))
        ]

    def _encode_with(
        self, index: int, wanted: Iterable[WindowKey], weights_key: Hashable
    ) -> EncodedWindows:
        encoded: dict[WindowKey, EncodedWindow] = {}
        missing: dict[int, list[PackedIds]] = {}  # by clip_skip
        for clip_skip, ids in wanted:
            known = self._cache.get(_StoredKey(index, clip_skip, ids, weights_key))
            if known is None:
                missing.setdefault(clip_skip, []).append(ids)
            else:
                encoded[clip_skip, ids] = known
        for clip_skip, windows in missing.items():
            unpacked = [*map(unpack_ids, windows)]
            vectors = self._embeddings.vectors(chain.from_iterable(unpacked), index)
            results = self._encoders[index].encode(unpacked, clip_skip, vectors)
            for ids, result in zip(windows, results, strict=True):
                key = _StoredKey(index, clip_skip, ids, weights_key)
                encoded[clip_skip, ids] = self._store(key, result)
        return encoded

    def _store(self, key: _StoredKey, window: EncodedWindow) -> EncodedWindow:
        if not self._cache.max_bytes:
            return window
        # A view would keep its whole batch in memory.
        pooled = None if window.pooled is None else window.pooled.clone()
        own = EncodedWindow(window.hidden.clone(), pooled)
        self._cache.put(key, own, key_bytes(key) + count_bytes(own))
        return own


class _StoredKey(NamedTuple):
    """All that an encoded window depends on."""

    encoder: int
    clip_skip: int
    ids: PackedIds
    weights_key: Hashable
