"""Calls that a download makes while it lasts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.weights.progress import Progress


def _ignore(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class DownloadHooks:
    """Calls from a download; each may be left out.

    Attributes:
        progress: given `download` or `hash`, the bytes done and all bytes (0 if not known).
        check_sha256: given the file's SHA-256 as its source states it, or None, before the file is
            asked for; what it raises ends the download.
        check_header: given the partial file, whose safetensors header is complete (or which is
            obviously no safetensors), and the whole file's size: as declared, else as its header
            has it, else what has come. A CheckpointError that it raises ends the download and
            removes what has come.
        check_space: given how many bytes are still to come, if that is known, before the first
            is written. A CheckpointError that it raises ends the download.
        note: given one line when something went wrong for a moment and is tried again.
    """

    progress: Progress = _ignore
    check_sha256: Callable[[str | None], None] = _ignore
    check_header: Callable[[Path, int], None] = _ignore
    check_space: Callable[[int | None], None] = _ignore
    note: Callable[[str], None] = _ignore
