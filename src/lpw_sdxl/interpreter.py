"""The interpreter's lock, between a thread of long work and those that answer."""

from __future__ import annotations

import time

PAUSE_S = 1e-6  # the least that a sleep lasts is some 60 microseconds


def let_others_run() -> None:
    """Leave the interpreter to the threads that wait for it, for a moment.

    To be called between pieces of work of some 0.1 ms. A thread that never pauses keeps the lock
    for a switch interval each time that another has let go of it. The event loop does so at each
    read and write, so a turn of a loop that reads large bodies would last tens of milliseconds.
    """
    time.sleep(PAUSE_S)
