"""One of several workers at a time, over a volume that they share.

The lease is a file that only one of them can create. Its holder touches it, and one whose time has
not changed for a while is its holder's no longer. It needs no locks, which network file systems
do not always keep between machines, and no clock that two machines share.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

logger = logging.getLogger(__name__)

BEAT_S = 5.0
STALE_S = 60.0  # a holder's machine may stand still for a while
LOOK_S = 1.0


@contextmanager
def lease(path: Path, *, beat_s: float = BEAT_S, stale_s: float = STALE_S) -> Iterator[None]:
    """Keep a lease until the block ends; wait for it as long as another holder is alive.

    Args:
        path: of its file, in a folder that is there.
        beat_s: how often the holder touches it, seconds.
        stale_s: without a touch for so long, its holder is gone.

    Raises:
        OSError: the volume can't be written to.
    """
    _acquire(path, min(LOOK_S, beat_s), stale_s)
    stopped = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, beat_s, stopped), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stopped.set()
        beat.join()
        path.unlink(missing_ok=True)


def _acquire(path: Path, look_s: float, stale_s: float) -> None:
    seen: tuple[int, int] | None = None
    seen_at = 0.0
    while not _create(path):
        state = _state(path)
        now = time.monotonic()
        if state != seen:
            if seen is None:
                logger.info("another worker imports the model; this one waits for it")
            seen, seen_at = state, now
        elif state is not None and now - seen_at > stale_s:
            logger.warning("the worker that imported the model is gone; this one goes on")
            _take_away(path, state)
        time.sleep(look_s)


def _create(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return False
    return True


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes with the holder, and with each of its touches."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _take_away(path: Path, state: tuple[int, int]) -> None:
    """Remove a lease without a holder; one that another worker has taken meanwhile stays."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _state(aside) != state:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _beat(path: Path, beat_s: float, stopped: threading.Event) -> None:
    while not stopped.wait(beat_s):
        with suppress(OSError):  # the next one may do
            os.utime(path)
