"""Why a folder or a file can't be read, in words that name it and what would be right; pure text.

A volume may be another user's, be mounted elsewhere, or be gone while it is read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_GONE = (errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT)


def why_unreadable(path: Path, error: OSError) -> str:
    """Return what was found and what would be right, without a full stop.

    Args:
        path: what was to be read; the error may name a file of it.
        error: what the system answered.
    """
    found = Path(error.filename) if isinstance(error.filename, str) else path
    if isinstance(error, PermissionError):
        return _why_closed(found, path)
    if isinstance(error, FileNotFoundError):
        return f"{found} is not there; a volume that is mounted, with that folder, would be right"
    if isinstance(error, NotADirectoryError):
        return f"{_nearest_file(found)} is a file; a folder would be right"
    what = f"{found} can't be read ({error.strerror or error})"
    if error.errno in _GONE:
        return f"{what}, as its volume does not answer; mounting it again would be right"
    return f"{what}; a volume that can be read would be right"


def _why_closed(found: Path, path: Path) -> str:
    """Name the first folder on the way that is closed to this process."""
    closed = next((each for each in [*reversed(found.parents), found] if _is_closed(each)), found)
    # All of the entry or the store is opened at once, and no folder above it further than needed.
    opened = path if path in [closed, *closed.parents] else closed
    return (
        f"{closed} is closed to uid {os.geteuid()}{_owner(closed)}; "
        f"`chmod -R a+rX {opened}` by its owner would be right"
    )


def _is_closed(path: Path) -> bool:
    try:
        is_folder = path.is_dir()
    except OSError:
        return False  # a folder above it is
    return not os.access(path, os.R_OK | os.X_OK if is_folder else os.R_OK)


def _owner(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    return f" ({stat.filemode(found.st_mode)}, of uid {found.st_uid})"


def _nearest_file(path: Path) -> Path:
    """Return the file that stands where a folder should."""
    return next((each for each in [path, *path.parents] if os.path.isfile(each)), path)
