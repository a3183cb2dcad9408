"""Safetensors files written one tensor at a time and hashed on the way; no torch.

The size of everything is known before the first byte, so the header goes first and nothing is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

from lpw_sdxl.weights.dtypes import DTYPE_BYTES
from lpw_sdxl.weights.files import FileDigests, FileRecord

_LENGTH_BYTES = 8
_ALIGNMENT = 8


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: its name, safetensors dtype code and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Return its bytes."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


def write_safetensors(
    path: Path,
    specs: Sequence[TensorSpec],
    contents: Iterable[bytes | memoryview],
    metadata: Mapping[str, str],
) -> FileRecord:
    """Write a file and return its size and digests.

    Args:
        path: the file; its folder exists.
        specs: the tensors, in the order of their bytes.
        contents: the bytes of each tensor, drawn one at a time in the same order. Two of them are
            in use at a time: while one is written, the next is drawn.
        metadata: the header's notes.
    """
    header = _header(specs, metadata)
    digests = FileDigests()
    digests.update(header)
    with path.open("wb") as file, ThreadPoolExecutor(1) as writer:
        # Hashing and writing release the interpreter, so one thread does each.
        pending = writer.submit(file.write, header)
        for spec, content in zip(specs, contents, strict=True):
            view = memoryview(content).cast("B")
            assert view.nbytes == spec.size, spec.name
            pending.result()
            pending = writer.submit(file.write, view)
            digests.update(view)
        pending.result()
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return digests.record(size)


def _header(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Return length and header, padded with blanks so that the tensors begin at a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for spec in specs:
        offsets = [position, position + spec.size]
        entries[spec.name] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text
