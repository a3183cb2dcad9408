"""Pictures that an answer names by URL: kept in memory for a while, under names that none guesses.

Bounded in number, bytes and time; the oldest goes first. For the event loop's thread alone.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

NAME_BYTES = 24


class LinkedPicture(NamedTuple):
    """A picture's file."""

    content: bytes
    media_type: str
    kept_until: float


class PictureLinks:
    """The pictures under URLs.

    Args:
        most: pictures.
        most_bytes: of all of them; one that alone is larger is not kept.
        seconds: for which each is kept.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        most: int = 512,
        most_bytes: int = 256 * 1024 * 1024,
        seconds: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        self._pictures: OrderedDict[str, LinkedPicture] = OrderedDict()
        self._size = 0

    def add(self, content: bytes, media_type: str) -> str:
        """Keep a picture and return its name."""
        name = f"{secrets.token_urlsafe(NAME_BYTES)}.{media_type.rpartition('/')[2]}"
        self._pictures[name] = LinkedPicture(content, media_type, self._clock() + self._seconds)
        self._size += len(content)
        while len(self._pictures) > self._most or self._size > self._most_bytes:
            self._drop_oldest()
        self._drop_late()
        return name

    def find(self, name: str) -> LinkedPicture | None:
        """Find a picture by its name; None if it is unknown or no longer kept."""
        self._drop_late()
        return self._pictures.get(name)

    def _drop_late(self) -> None:
        now = self._clock()
        while self._pictures and next(iter(self._pictures.values())).kept_until <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, picture = self._pictures.popitem(last=False)
        self._size -= len(picture.content)
