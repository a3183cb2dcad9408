"""A cache bounded in bytes that drops the entry used longest ago; it knows nothing of tensors."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(slots=True)
class CacheCounters:
    """The lookups of a cache, and its content.

    Attributes:
        hits: lookups that found a value.
        misses: lookups that found none.
        entries: held now.
        bytes: held now.
    """

    hits: int = 0
    misses: int = 0
    entries: int = 0
    bytes: int = 0


class ByteCache(Generic[Key, Value]):
    """A cache of values of known size; for one thread at a time."""

    def __init__(self, max_bytes: int) -> None:
        """Make an empty cache of at most `max_bytes`; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self.counters = CacheCounters()
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        """Return whether there is an entry, without marking it as used."""
        return key in self._entries

    def get(self, key: Key) -> Value | None:
        """Find a value and mark its entry as most recently used; None where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def touch(self, key: Key) -> None:
        """Mark an entry as most recently used, without counting a lookup."""
        if key in self._entries:
            self._entries.move_to_end(key)

    def put(self, key: Key, value: Value, size: int) -> None:
        """Store a value of `size` bytes, unless it alone is larger than the cache."""
        if size > self.max_bytes:
            return
        self._drop(key)
        self.make_room(size)
        self._entries[key] = (value, size)
        self.counters.bytes += size
        self.counters.entries = len(self._entries)

    def make_room(self, size: int) -> None:
        """Drop as many entries as it takes to store one of `size` bytes, or all."""
        while self._entries and self.counters.bytes + size > self.max_bytes:
            self._drop(next(iter(self._entries)))
        self.counters.entries = len(self._entries)

    def _drop(self, key: Key) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self.counters.bytes -= size


def key_bytes(key: Hashable) -> int:
    """Count the bytes of a key made of nested tuples, strings, bytes and numbers."""
    own = sys.getsizeof(key)
    return own + sum(map(key_bytes, key)) if isinstance(key, tuple) else own
