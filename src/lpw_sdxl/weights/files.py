"""A file's size, digests and stamp."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blake3 import blake3

# A thread that hashes waits for the interpreter twice a piece, for a switch interval each time
# beside another that computes. With 1 MB a cold start at full size took half as long again.
_CHUNK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class FileRecord:
    """A file's size in bytes and its digests, in lower-case hexadecimal digits.

    Attributes:
        sha256: the one that other tools make, too.
        blake3: as strong, in a third of the time and less; None in an entry of an earlier version.
    """

    size: int
    sha256: str
    blake3: str | None = None


class _Digest(Protocol):
    """A digest of hashlib's or blake3's."""

    def update(self, data: bytes | memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


class FileDigests:
    """Both digests of a file's bytes, which come in pieces."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._blake3 = blake3()

    def update(self, piece: bytes | memoryview) -> None:
        """Add a piece; the interpreter is free meanwhile, if it is a large one."""
        self._sha256.update(piece)
        self._blake3.update(piece)

    def record(self, size: int) -> FileRecord:
        """Return the record of all pieces.

        Args:
            size: bytes of all of them.
        """
        return FileRecord(size, self._sha256.hexdigest(), self._blake3.hexdigest())


def hash_file(path: Path, report: Callable[[int], None] | None = None) -> str:
    """Return a file's SHA-256 in lower-case hexadecimal digits.

    Args:
        path: the file.
        report: called with the number of bytes hashed, every few megabytes.
    """
    digest = hashlib.sha256()
    _read_into(path, digest, report)
    return digest.hexdigest()


def hash_file_fast(path: Path) -> str:
    """Return a file's BLAKE3 in lower-case hexadecimal digits.

    It is read, not mapped into memory: where a mount fails, that is an error and not a signal.
    """
    digest: _Digest = blake3()
    _read_into(path, digest)
    return digest.hexdigest()


def record_file(path: Path) -> FileRecord:
    """Return a file's size and digests, read now."""
    digests = FileDigests()
    return digests.record(_read_into(path, digests))


def _read_into(
    path: Path, digest: _Digest | FileDigests, report: Callable[[int], None] | None = None
) -> int:
    """Hash a file piece by piece; return its bytes."""
    done, piece = 0, memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(piece):
            digest.update(piece[:size])
            done += size
            if report is not None:
                report(done)
    return done


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
