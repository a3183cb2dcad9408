"""A file's size, SHA-256 and stamp."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CHUNK_BYTES = 1024 * 1024  # what is larger, Python has from the system anew for each chunk


@dataclass(frozen=True)
class FileRecord:
    """A file's size in bytes and its SHA-256 in lower-case hexadecimal digits."""

    size: int
    sha256: str


def hash_file(path: Path, report: Callable[[int], None] | None = None) -> str:
    """Return a file's SHA-256 in lower-case hexadecimal digits.

    Args:
        path: the file.
        report: called with the number of bytes hashed, every megabyte.
    """
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if report is not None:
                report(done)
    return digest.hexdigest()


def record_file(path: Path) -> FileRecord:
    """Return a file's size and SHA-256, read now."""
    return FileRecord(path.stat().st_size, hash_file(path))


def file_stamp(path: Path) -> str:
    """Return a stamp that changes whenever the file does, without reading it (`stamp_of`).

    Empty for a file that can't be found.
    """
    try:
        return stamp_of(path.stat())
    except OSError:
        return ""


def stamp_of(stat: os.stat_result) -> str:
    """Return a file's stamp: device, inode, size, and when contents and inode last changed.

    Git keeps the same for its index.
    """
    return ":".join(
        map(str, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    )
