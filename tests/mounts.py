"""A file system that answers when a test lets it."""

from __future__ import annotations

import threading
from pathlib import Path

from lpw_sdxl.api.watched_file import read_small_file


class Mount:
    """Reads files; hangs in between, as a mount whose server is gone.

    Attributes:
        is_read: set when a read has begun that hangs.
    """

    def __init__(self) -> None:
        self.is_read = threading.Event()
        self._answers = threading.Event()
        self._answers.set()

    def hang(self) -> None:
        self._answers.clear()

    def answer(self) -> None:
        self._answers.set()

    def read(self, path: Path) -> bytes:
        if not self._answers.is_set():
            self.is_read.set()
        self._answers.wait()
        return read_small_file(path)
