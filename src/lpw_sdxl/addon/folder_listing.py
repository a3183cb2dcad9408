"""The safetensors files in a folder and its sub-folders, found by their names alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ENDING = ".safetensors"


def walk(root: Path) -> Iterator[Path]:
    """Yield the files, in order; links are followed, and no folder is entered twice.

    Names that begin with a dot are left out: they are what tools write before a file is whole. So
    is a sub-folder that is closed, or goes meanwhile.

    Raises:
        OSError: the folder itself can't be read, or the disk fails.
    """
    entered: set[tuple[int, int]] = set()

    def leave_out(error: OSError) -> None:
        is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        is_closed = isinstance(error, PermissionError) and error.filename != str(root)
        if not (is_gone or is_closed):
            raise error

    for folder, folders, files in os.walk(root, onerror=leave_out, followlinks=True):
        identity = _identity(folder)
        is_new = identity is not None and identity not in entered
        entered.update([identity] if identity else [])
        folders[:] = sorted(one for one in folders if is_new and not one.startswith("."))
        for name in sorted(files) if is_new else ():
            if name.lower().endswith(ENDING) and not name.startswith("."):
                yield Path(folder, name)


def _identity(folder: str) -> tuple[int, int] | None:
    """Return what is a folder's own, whatever its name; None if it has gone."""
    try:
        stat = os.stat(folder)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
