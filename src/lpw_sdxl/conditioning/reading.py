"""All encoders' reading of windows: each distinct one once, and none that was read lately."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from lpw_sdxl.conditioning.assembly import EncodedWindows, Plan, WindowKey
from lpw_sdxl.conditioning.cache import ByteCache, CacheCounters
from lpw_sdxl.conditioning.clip import ClipTextEncoder, EncodedWindow

_ID_BYTES = 40  # an int and its place in a tuple


class WindowReader:
    """The encoders of one model with a bounded memory of what they read; for one thread."""

    def __init__(self, encoders: Sequence[ClipTextEncoder], cache_bytes: int) -> None:
        """Remember at most `cache_bytes` of windows; 0 is none."""
        self._encoders = tuple(encoders)
        self._cache: ByteCache[_StoredKey, EncodedWindow] = ByteCache(cache_bytes)

    @property
    def counters(self) -> CacheCounters:
        """What the memory has done; a window counts for each encoder."""
        return self._cache.counters

    def read(self, plans: Sequence[Plan], weights_key: Hashable) -> list[EncodedWindows]:
        """Have each encoder read what all plans name, in as few calls as its memory allows.

        Args:
            plans: of pairs of prompts.
            weights_key: names the weights that the encoders hold now.

        Returns:
            For each encoder the windows that the plans name.
        """
        return [
            self._read_with(
                index,
                dict.fromkeys(key for plan in plans for key in plan.windows(index)),
                weights_key,
            )
            for index in range(len(self._encoders))
        ]

    def _read_with(
        self, index: int, wanted: Iterable[WindowKey], weights_key: Hashable
    ) -> EncodedWindows:
        encoded: dict[WindowKey, EncodedWindow] = {}
        missing: dict[int, list[tuple[int, ...]]] = {}  # by clip_skip
        for clip_skip, ids in wanted:
            known = self._cache.get(_StoredKey(index, clip_skip, ids, weights_key))
            if known is None:
                missing.setdefault(clip_skip, []).append(ids)
            else:
                encoded[clip_skip, ids] = known
        for clip_skip, windows in missing.items():
            results = self._encoders[index].encode(windows, clip_skip)
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
        self._cache.put(key, own, len(key.ids) * _ID_BYTES + count_bytes(own))
        return own


def count_bytes(tensors: Iterable[Tensor | None]) -> int:
    """Count what tensors take on their device."""
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class _StoredKey(NamedTuple):
    """What an encoded window depends on."""

    encoder: int
    clip_skip: int
    ids: tuple[int, ...]
    weights_key: Hashable
