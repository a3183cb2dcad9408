"""A file in a folder of LoRAs or embeddings: how far it is, from when it is first seen."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from lpw_sdxl.addon.loose import LooseAddon

STILL_S = 1.0  # a file that has not changed for so long is no longer being written
STILL_AT_FIRST_S = 3.0  # likewise by its own times, which another machine's clock may have made
MOST_STILL_S = 60.0  # a file that changed soon after it was read has to keep still for longer
AGAIN_S = 5.0  # a file that could not be opened or read is tried again after so long
WRITTEN_BESIDE = (".aria2", ".part", ".crdownload")
"""Endings of what downloaders keep beside a file, of its full size, that they still write."""


class State(Enum):
    """How far a file is."""

    SEEN = auto()
    WAITING = auto()
    READ = auto()
    REFUSED = auto()


class ChangedError(Exception):
    """A file that changed while it was read, or that is no longer needed."""


@dataclass(eq=False)
class LooseFile:
    """A file in the folder, from when it is first seen until it changes or goes.

    Attributes:
        path: of the file.
        stamp: its `stamp_with_config`.
        since: when it was first seen so (time.monotonic).
        state: how far it is.
        addon: what was read, in the state READ.
        reason: why it can't be used, in the state REFUSED.
        before: an embedding that the file held before, which serves until the new one is read.
        still_s: how long it has to keep still before it is read.
        was_read: whether its contents were read, and not its header alone.
        is_known: whether what it is has been published, so that nothing waits for it any more.
    """

    path: Path
    stamp: str
    since: float
    state: State = State.SEEN
    addon: LooseAddon | None = None
    reason: str = ""
    before: LooseAddon | None = None
    still_s: float = field(default_factory=lambda: STILL_S)
    was_read: bool = False
    is_known: bool = False
    waiting: list[Future[None]] = field(default_factory=list)

    @property
    def usable(self) -> LooseAddon | None:
        """Return what requests may use of it now."""
        return self.addon if self.is_read else self.before

    @property
    def is_read(self) -> bool:
        """Return whether it was read, well or not."""
        return self.state in (State.READ, State.REFUSED)

    def is_still(self, now: float) -> bool:
        """Return whether it is no longer being written, as far as its times show.

        Args:
            now: time.monotonic.
        """
        if now - self.since >= self.still_s:
            return not any(
                self.path.with_name(self.path.name + end).exists() for end in WRITTEN_BESIDE
            )
        if self.still_s > STILL_S:
            return False
        try:
            stat = self.path.stat()
        except OSError:
            return False
        return time.time() - max(stat.st_mtime, stat.st_ctime) >= STILL_AT_FIRST_S

    def replace(self, stamp: str, now: float, *, serves_on: bool) -> LooseFile:
        """Return the file as it is seen now that its stamp is another one.

        Args:
            stamp: the new one.
            now: time.monotonic.
            serves_on: whether what it held serves until the new one is read.
        """
        still_s = STILL_S
        if self.was_read and _place_and_size(stamp) == _place_and_size(self.stamp):
            # What writes it in its place pauses for longer than was waited.
            still_s = min(2 * self.still_s, MOST_STILL_S)
        usable = self.usable if serves_on else None
        return LooseFile(self.path, stamp, now, before=usable, still_s=still_s)

    def release(self) -> None:
        """Resolve what waits for it: it is read, or is another one by now."""
        self.is_known = True
        for future in self.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)
        self.waiting.clear()


def _place_and_size(stamp: str) -> list[str]:
    """Return the device, the inode and the size of a stamp."""
    return stamp.split(":")[:3]
