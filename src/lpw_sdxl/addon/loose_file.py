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
    """

    path: Path
    stamp: str
    since: float
    state: State = State.SEEN
    addon: LooseAddon | None = None
    reason: str = ""
    before: LooseAddon | None = None
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
        if now - self.since >= STILL_S:
            return True
        try:
            stat = self.path.stat()
        except OSError:
            return False
        return time.time() - max(stat.st_mtime, stat.st_ctime) >= STILL_AT_FIRST_S

    def release(self) -> None:
        """Resolve what waits for it: it is read, or is another one by now."""
        for future in self.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)
        self.waiting.clear()
