"""Counts what would flood the log, and tells it once in a while."""

from __future__ import annotations

import asyncio
import logging


class Tally:
    """Tells the first of a kind at once, and those that follow as a number.

    Args:
        logger: where it is told.
        words: a sentence with `%d` for the number and `%s` for who was the last.
        seconds: between two lines, at least.
    """

    def __init__(self, logger: logging.Logger, words: str, seconds: float = 60.0) -> None:
        self._logger = logger
        self._words = words
        self._seconds = seconds
        self._count = 0
        self._last = ""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, who: str) -> None:
        """Count one more; for an event loop's thread."""
        self._count += 1
        self._last = who
        if self._timer is None:
            self._tell()

    def _tell(self) -> None:
        """Tell what has come, and look again later; rest when nothing came."""
        if not self._count:
            self._timer = None
            return
        self._logger.warning(self._words, self._count, self._last)
        self._count = 0
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._tell)
