"""Sees that the engine's thread lives and moves: if not, nobody waits for it for ever."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class Pulse:
    """Shows that a thread moves: it beats before each piece of work, and rests between."""

    def __init__(self) -> None:
        self._last: float | None = None

    def beat(self) -> None:
        """Say that a piece of work begins."""
        self._last = time.monotonic()

    def rest(self) -> None:
        """Say that there is nothing to do."""
        self._last = None

    @property
    def silent_s(self) -> float:
        """Say how long the piece of work has lasted; 0 at rest."""
        last = self._last
        return 0.0 if last is None else time.monotonic() - last


class Watchdog:
    """Watches one thread from another.

    Args:
        watched: the thread.
        pulse: what shows that it moves.
        stall_s: one piece of work may last so long, seconds.
        alarm: called once, in the watchdog's thread, with what happened.
        look_every_s: how often to look.
    """

    def __init__(
        self,
        watched: threading.Thread,
        pulse: Pulse,
        stall_s: float,
        alarm: Callable[[str], None],
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._watched = watched
        self._pulse = pulse
        self._stall_s = stall_s
        self._alarm = alarm
        self._look_every_s = look_every_s
        self._is_off = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lpw-sdxl-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch; the watched thread has been started."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more: the thread's end is intended."""
        self._is_off.set()

    def _watch(self) -> None:
        while not self._is_off.wait(self._look_every_s):
            if not self._watched.is_alive():
                if self._is_off.is_set():  # it was told to end while we looked
                    return
                self._alarm("the engine's thread has ended")
                return
            if self._pulse.silent_s > self._stall_s:
                logger.critical(
                    "the engine's thread has not moved for %.0f s; it is here:\n%s",
                    self._pulse.silent_s,
                    self._stack(),
                )
                self._alarm(f"the engine's thread has not moved for {self._stall_s:.0f} s")
                return

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame else "nowhere"
