"""Trying again: how often, after how long, and the line that is noted each time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from lpw_sdxl.download.answers import TransientError
from lpw_sdxl.errors import CheckpointError

MAX_ATTEMPTS = 5
MAX_DELAY_S = 60.0

Result = TypeVar("Result")


class Retries:
    """Attempts in a row that brought nothing.

    Attributes:
        note: called with one line before each new attempt.
        delay_s: before the second attempt; it doubles with each one more, up to a minute.
    """

    def __init__(self, note: Callable[[str], None], delay_s: float) -> None:
        self.note = note
        self.delay_s = delay_s
        self._failures = 0
        self._has_progressed = False

    def run(self, action: Callable[[], Result], where: Callable[[], str] = lambda: "") -> Result:
        """Do something until it does not fail for a moment's reason.

        Args:
            action: what is done.
            where: returns how far it had come, as the end of a sentence, or nothing.

        Raises:
            CheckpointError: it failed five times in a row without progress, or for good.
        """
        while True:
            try:
                return action()
            except TransientError as error:
                failure = error
            self._failures = 0 if self._has_progressed else self._failures + 1
            self._has_progressed = False
            sentence = f"{str(failure).rstrip('.')}{where()}"
            if self._failures >= MAX_ATTEMPTS:
                raise CheckpointError(
                    f"{sentence} (tried {MAX_ATTEMPTS} times; the same command tries again and "
                    "keeps what has come)."
                )
            self._wait(sentence, failure.retry_after_s)

    def progressed(self) -> None:
        """Count from the beginning again: something has come that had not come before."""
        self._has_progressed = True

    def _wait(self, sentence: str, retry_after_s: float) -> None:
        # Partly by chance, so that clients of one lost server don't all come back at once.
        delay = self.delay_s * 2 ** max(self._failures - 1, 0)
        delay *= random.uniform(0.75, 1.25)  # noqa: S311 - no secret depends on it
        delay = min(max(delay, retry_after_s), MAX_DELAY_S)
        self.note(f"{sentence}; trying again in {delay:,.0f} s.")
        time.sleep(delay)
