"""A cache bounded in bytes that forgets what was used longest ago; it knows nothing of tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(slots=True)
class CacheCounters:
    """What a cache has done, and holds.

    Attributes:
        hits: lookups that found something.
        misses: lookups that found nothing.
        entries: held now.
        bytes: held now.
    """

    hits: int = 0
    misses: int = 0
    entries: int = 0
    bytes: int = 0


class ByteCache(Generic[Key, Value]):
    """Keeps values of known size, up to a number of bytes; for one thread at a time."""

    def __init__(self, max_bytes: int) -> None:
        """Keep at most `max_bytes`; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self.counters = CacheCounters()
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        """Tell whether a value is kept; it is not thereby used."""
        return key in self._entries

    def get(self, key: Key) -> Value | None:
        """Find a value, which is then the last to be forgotten."""
        entry = self._entries.get(key)
        if entry is None:
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def touch(self, key: Key) -> None:
        """Let a value, if it is kept, be the last to be forgotten; nobody asked for it."""
        if key in self._entries:
            self._entries.move_to_end(key)

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep a value of `size` bytes; what alone is larger than the cache is not kept."""
        if size > self.max_bytes:
            return
        self._forget(key)
        self.make_room(size)
        self._entries[key] = (value, size)
        self.counters.bytes += size
        self.counters.entries = len(self._entries)

    def make_room(self, size: int) -> None:
        """Forget as many values as must go for one of `size` bytes, or all."""
        while self._entries and self.counters.bytes + size > self.max_bytes:
            self._forget(next(iter(self._entries)))
        self.counters.entries = len(self._entries)

    def _forget(self, key: Key) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self.counters.bytes -= size
