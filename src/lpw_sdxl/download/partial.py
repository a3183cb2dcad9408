"""The part of a file that has come so far: its bytes on disk, and their SHA-256 as they come.

Knows nothing about where they come from. Every byte is written before it is hashed and counted,
so what a killed process leaves is a beginning of the file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

from lpw_sdxl.weights.header import announced_header
from lpw_sdxl.weights.header_json import parse_header_json
from lpw_sdxl.weights.progress import Progress

_CHUNK_BYTES = 1024 * 1024
_LENGTH_BYTES = 8


class PartialFile:
    """A growing file; close it at the end.

    Attributes:
        path: where it is.
        position: bytes that it has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._header_end: int | None = None

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of what has come."""
        return self._digest.hexdigest()

    def resume(self, progress: Progress) -> None:
        """Continue behind what is on disk, which is read once for its SHA-256."""
        file = self._file = self.path.open("r+b", buffering=0)
        total = os.fstat(file.fileno()).st_size
        while chunk := file.read(_CHUNK_BYTES):
            self._count(chunk)
            progress("hash", self.position, total)

    def start(self) -> None:
        """Begin with nothing."""
        self._file = self.path.open("w+b", buffering=0)

    def append(self, chunk: bytes) -> None:
        """Write the next bytes."""
        assert self._file is not None
        rest = memoryview(chunk)
        while rest:  # a disk that is nearly full takes a part of them
            rest = rest[self._file.write(rest) :]
        self._count(chunk)

    def finish(self, path: Path) -> None:
        """Make the bytes survive a power cut and give the file its own name."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        self.close()
        self.path.rename(path)

    def close(self) -> None:
        """Close the file; it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def has_header(self, file_size: int | None) -> bool:
        """Return whether the whole safetensors header has come, or what is obviously none.

        Args:
            file_size: bytes of the whole file; None while that is not known.
        """
        if self._header_end is None and self.position > _LENGTH_BYTES:
            length = announced_header(self._read(_LENGTH_BYTES + 1), file_size)
            self._header_end = 0 if length is None else _LENGTH_BYTES + length
        return self._header_end is not None and self.position >= self._header_end

    def header(self) -> bytes:
        """Return the safetensors header's JSON; empty if it is none."""
        return self._read(self._header_end or 0)[_LENGTH_BYTES:]

    def _count(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.position += len(chunk)

    def _read(self, length: int) -> bytes:
        assert self._file is not None
        return os.pread(self._file.fileno(), length, 0)


def size_by_header(header: bytes) -> int:
    """Return the size that a safetensors file must have, bytes; 0 if not in its header."""
    try:
        entries: dict[str, Any] = dict(parse_header_json(header))
        ends = [e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__"]
        return _LENGTH_BYTES + len(header) + int(max(ends, default=0))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return 0  # `read_header` states what is wrong with it
