"""A watchdog for the engine's thread, so that no caller waits for a dead or stalled one."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 1.0


class Pulse:
    """The sign of life of a thread: it beats before each piece of work, and rests between."""

    def __init__(self) -> None:
        self._last: float | None = None

    def beat(self) -> None:
        """Note that a piece of work begins."""
        self._last = time.monotonic()

    def rest(self) -> None:
        """Note that there is nothing to do."""
        self._last = None

    @property
    def busy_s(self) -> float:
        """Compute how long the piece of work has lasted, seconds; 0 at rest."""
        last = self._last
        return 0.0 if last is None else time.monotonic() - last


class Watchdog:
    """A watchdog: a thread that raises the alarm if another thread ends or stalls.

    Args:
        watched: the other thread.
        pulse: its sign of life.
        stall_s: one piece of work may last so long, seconds.
        alarm: called once, in the watchdog's thread, with the reason.
        check_every_s: seconds between two checks.
    """

    def __init__(
        self,
        watched: threading.Thread,
        pulse: Pulse,
        stall_s: float,
        alarm: Callable[[str], None],
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        self._watched = watched
        self._pulse = pulse
        self._stall_s = stall_s
        self._alarm = alarm
        self._look_every_s = check_every_s
        self._is_off = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lpw-sdxl-watchdog", daemon=True)

    def start(self) -> None:
        """Start to watch; the watched thread must have been started."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching: from now on the thread's end is intended."""
        self._is_off.set()

    def _watch(self) -> None:
        while not self._is_off.wait(self._look_every_s):
            if not self._watched.is_alive():
                if self._is_off.is_set():  # stopped since the wait above returned
                    return
                self._alarm("the engine's thread has ended")
                return
            if self._pulse.busy_s > self._stall_s:
                logger.critical(
                    "the engine's thread has not moved for %.0f s; it is here:\n%s",
                    self._pulse.busy_s,
                    self._stack(),
                )
                self._alarm(f"the engine's thread has not moved for {self._stall_s:.0f} s")
                return

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame else "nowhere"
