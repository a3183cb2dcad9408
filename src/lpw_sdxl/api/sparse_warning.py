"""Counts what would flood the log, and tells it once in a while."""

from __future__ import annotations

import asyncio
import logging
import time


class SparseWarning:
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


class SparseWarningFilter(logging.Filter):
    """Lets a warning through once in a while; for a logger whose warnings any client can cause.

    Args:
        seconds: between two warnings of the same words, at least.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._told: dict[str, tuple[float, int]] = {}  # by words: when told, how many since

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is written; anything but a warning is."""
        if record.levelno != logging.WARNING:
            return True
        kind = str(record.msg)  # before its values are put in: there are few
        now = time.monotonic()
        told_at, silent = self._told.get(kind, (-self._seconds, 0))
        if now - told_at < self._seconds:
            self._told[kind] = (told_at, silent + 1)
            return False
        self._told[kind] = (now, 0)
        if silent:
            record.msg, record.args = f"{record.getMessage()} ({silent} more before)", ()
        return True
