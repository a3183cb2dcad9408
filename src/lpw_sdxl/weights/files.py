"""A file's size and SHA-256."""

from __future__ import annotations

import hashlib
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
        report: told how many bytes are hashed, every megabyte.
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
