"""Conditionings that were encoded lately, by the prompts that they were made from."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import NamedTuple

from lpw_sdxl.conditioning.assembly import Conditioning
from lpw_sdxl.conditioning.cache import ByteCache, CacheCounters, key_bytes
from lpw_sdxl.conditioning.clip import count_bytes
from lpw_sdxl.conditioning.read_prompts import ReadPrompts


class ConditioningKey(NamedTuple):
    """All that a Conditioning depends on.

    Attributes:
        prompts: a pair, read.
        weights_key: a name of the weights that the encoders held.
    """

    prompts: ReadPrompts
    weights_key: Hashable

    @property
    def nbytes(self) -> int:
        """Count the bytes that the key keeps in memory."""
        return sys.getsizeof(self) + self.prompts.nbytes + key_bytes(self.weights_key)


class ConditioningCache:
    """Conditionings up to a number of bytes, their keys included; for one thread at a time."""

    def __init__(self, max_bytes: int) -> None:
        """Make an empty cache of at most `max_bytes`; 0 keeps nothing."""
        self._cache: ByteCache[ConditioningKey, Conditioning] = ByteCache(max_bytes)

    @property
    def counters(self) -> CacheCounters:
        """Return the counters, which go on counting."""
        return self._cache.counters

    def get(self, key: ConditioningKey) -> Conditioning | None:
        """Find a Conditioning that was stored under an equal key."""
        return self._cache.get(key)

    def put(self, key: ConditioningKey, conditioning: Conditioning) -> None:
        """Store a Conditioning."""
        self._cache.put(key, conditioning, key.nbytes + count_bytes(conditioning.tensors))
