"""Warnings that clients can cause at will, kept from flooding the log."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time


class SparseWarning:
    """A warning about repeated events: logs the first at once, then a count once a minute.

    Args:
        logger: writes the warnings.
        template: a sentence with `%d` for the number of events and `%s` for the last one's cause.
        seconds: minimum between two lines.
    """

    def __init__(self, logger: logging.Logger, template: str, seconds: float = 60.0) -> None:
        self._logger = logger
        self._template = template
        self._seconds = seconds
        self._count = 0
        self._last = ""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, cause: str) -> None:
        """Count one event; to be called in the event loop's thread."""
        self._count += 1
        self._last = cause
        if self._timer is None:
            self._log()

    def _log(self) -> None:
        """Log the count and start the timer again; stop the timer if there was no event."""
        if not self._count:
            self._timer = None
            return
        self._logger.warning(self._template, self._count, self._last)
        self._count = 0
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._log)


class SparseWarningFilter(logging.Filter):
    """A filter that passes each kind of warning once a minute; for any number of threads.

    Args:
        seconds: minimum between two warnings of the same message template.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        super().__init__()
        self._seconds = seconds
        # By template: when it was last logged (seconds), how many were dropped since.
        self._logged: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged; all but warnings are."""
        if record.levelno != logging.WARNING:
            return True
        template = str(record.msg)  # without its values, so that there are few
        with self._lock:
            now = time.monotonic()
            logged_at, dropped = self._logged.get(template, (-math.inf, 0))
            if now - logged_at < self._seconds:
                self._logged[template] = (logged_at, dropped + 1)
                return False
            self._logged[template] = (now, 0)
        if dropped:
            record.msg, record.args = f"{record.getMessage()} ({dropped} more before)", ()
        return True
