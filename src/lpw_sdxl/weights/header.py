"""The header of a safetensors file, read and checked without touching the weights.

A safetensors file is eight bytes of length (little endian), that many bytes of JSON, then the
tensors' bytes without gaps (https://huggingface.co/docs/safetensors). Everything that a damaged or
hostile file can get wrong is refused here, in one sentence; nothing here knows what SDXL is.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.weights.dtypes import DTYPE_BYTES
from lpw_sdxl.weights.header_json import HeaderJsonError, parse_header_json
from lpw_sdxl.weights.text import clean_text

MAX_HEADER_BYTES = 100_000_000

_LENGTH_BYTES = 8
_MAX_DIMENSIONS = 8
_MAX_SHOWN = 200  # characters of a tensor's name in a message
_MAX_SIZE = 1 << 48
_SUB_BYTE_DTYPES = ("F4", "F6_E2M3", "F6_E3M2")
_FOREIGN_FORMATS = {
    b"PK\x03\x04": "a zip archive, as PyTorch's .ckpt files are",
    **{bytes([0x80, protocol]): "a Python pickle (.ckpt)" for protocol in (2, 3, 4, 5)},
    b"GGUF": "a GGUF file",
    b"<": "a web page, as a download without a login leaves it",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer; the file itself was not downloaded",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's place.

    Attributes:
        path: the file that holds it.
        name: what that file calls it.
        dtype: safetensors' code, such as `F16`.
        shape: sizes of its dimensions.
        start: offset of its first byte from the start of the file.
        end: offset behind its last byte from the start of the file.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def rows(self, first: int, count: int) -> TensorInfo:
        """Return the place of some rows, which lie together because tensors are saved by rows."""
        row = (self.end - self.start) // self.shape[0]
        start = self.start + first * row
        return replace(self, shape=(count, *self.shape[1:]), start=start, end=start + count * row)


@dataclass(frozen=True)
class CheckpointHeader:
    """The header of a safetensors file.

    Attributes:
        path: the file.
        file_size: bytes.
        metadata: the writer's own notes, such as `modelspec.resolution`.
        tensors: each tensor by name, in the file's order of bytes. Once `layout.py` or
            `selection.py` has been at work, the name is Stability's and may differ from the file's.
        vae_path: the file that the VAE's tensors are taken from, if it is another one.
    """

    path: Path
    file_size: int
    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorInfo]
    vae_path: Path | None = None

    @property
    def name(self) -> str:
        """Return the file's name, as it will be when a download of it is whole."""
        return _name(self.path)

    def file_of(self, tensor: str) -> str:
        """Return the name of the file that a tensor is in, or would be."""
        is_foreign = self.vae_path is not None and tensor.startswith("first_stage_model.")
        return self.vae_path.name if self.vae_path and is_foreign else self.name


def read_header(path: Path, full_size: int | None = None) -> CheckpointHeader:
    """Read and check a safetensors file's header.

    Args:
        path: the file.
        full_size: bytes that the file will have when it is whole; None for one that is whole. Of a
            file that is still being downloaded, the header alone must be there.

    Raises:
        UnsupportedCheckpointError: the file is of another, known format.
        CheckpointError: the file is missing, unreadable, truncated or damaged.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise CheckpointError(f"{clean_text(str(path))} can't be read: it is not a file.")
        file_size = found.st_size if full_size is None else full_size
        with path.open("rb") as file:
            opening = file.read(64)
            length = _header_length(path, opening, file_size)
            file.seek(_LENGTH_BYTES)
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"{clean_text(str(path))} can't be read: {error.strerror}."
        ) from error
    entries = _parse(path, text)
    metadata = _metadata(path, entries.pop("__metadata__", {}))
    tensors = _tensors(path, entries, _LENGTH_BYTES + length, file_size)
    return CheckpointHeader(path, file_size, MappingProxyType(metadata), MappingProxyType(tensors))


def _name(path: Path) -> str:
    return clean_text(path.name.removesuffix(".part")) or str(path)


def announced_header(opening: bytes, file_size: int | None) -> int | None:
    """Return the length of the header that a file's first bytes announce, or None for none.

    A length may begin with any byte, a pickle's or a web page's first ones too. With it come five
    bytes that are zero below 16 MB and the `{` of the JSON, as in no other format.

    Args:
        opening: the first nine bytes, or more.
        file_size: bytes of the whole file; None while that is not known.
    """
    length = int.from_bytes(opening[:_LENGTH_BYTES], "little")
    is_json = opening[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"
    fits = file_size is None or _LENGTH_BYTES + length <= file_size
    return length if is_json and fits and length <= MAX_HEADER_BYTES else None


def _header_length(path: Path, opening: bytes, file_size: int) -> int:
    announced = announced_header(opening, file_size)
    if announced is not None:
        return announced
    for magic, name in _FOREIGN_FORMATS.items():
        if opening.lstrip().startswith(magic) if magic == b"<" else opening.startswith(magic):
            raise UnsupportedCheckpointError(
                f"{_name(path)} is {name}; a .safetensors file is needed."
            )
    if len(opening) < _LENGTH_BYTES:
        _damaged(path, f"it has {file_size} bytes and even an empty safetensors file has more")
    length = int.from_bytes(opening[:_LENGTH_BYTES], "little")
    if opening[_LENGTH_BYTES : _LENGTH_BYTES + 1] not in (b"{", b""):
        raise CheckpointError(
            f"{_name(path)} has no safetensors header; a .safetensors file is needed."
        )
    if length > MAX_HEADER_BYTES:
        _damaged(path, f"its header of {length:,} bytes is over the limit of {MAX_HEADER_BYTES:,}")
    if _LENGTH_BYTES + length > file_size:
        _damaged(path, f"it is truncated within its header, at {file_size:,} bytes")
    return length


def _parse(path: Path, text: bytes) -> dict[str, object]:
    try:
        return parse_header_json(text)
    except HeaderJsonError as error:
        _damaged(path, str(error), error)


def _metadata(path: Path, metadata: object) -> dict[str, str]:
    if metadata is None:  # JSON's null, which safetensors' own reader takes for no metadata
        return {}
    if not isinstance(metadata, dict):
        _damaged(path, "its metadata is not a JSON object")
    if not all(isinstance(value, str) for value in metadata.values()):
        _damaged(path, "its metadata holds something else than text")
    return metadata


def _tensors(
    path: Path, entries: dict[str, object], data_start: int, file_size: int
) -> dict[str, TensorInfo]:
    """Return the tensors in the order of their bytes, which must fill the file without gaps."""
    tensors = {name: _tensor(path, name, entry, data_start) for name, entry in entries.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))
    position = data_start
    for name, tensor in ordered.items():
        if tensor.start != position:
            _damaged(path, f"tensor {_shown(name)} doesn't begin where the one before it ends")
        position = tensor.end
    if position > file_size:
        _damaged(path, f"it is truncated: {file_size:,} of {position:,} bytes are there")
    if position < file_size:
        _damaged(path, f"{file_size - position:,} bytes follow its last tensor")
    return ordered


def _tensor(path: Path, name: str, entry: object, data_start: int) -> TensorInfo:
    # It could be any tensor, one that must not be missing among them.
    if not name or not (name.isprintable() or _shown(name)):
        _damaged(path, "one of its tensors has no name")
    if not isinstance(entry, dict):
        _damaged(path, f"the entry of tensor {_shown(name)} is not a JSON object")
    dtype = entry.get("dtype")
    if dtype in _SUB_BYTE_DTYPES:
        raise UnsupportedCheckpointError(
            f"{_name(path)} is quantised: tensor {_shown(name)} has the dtype {dtype}; bring its "
            "fp16, bf16, fp32 or plain fp8 version."
        )
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        _damaged(path, f"tensor {_shown(name)} has the unknown dtype {dtype!r:.40}")
    shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        _damaged(path, f"the shape or the offsets of tensor {_shown(name)} are not lists of sizes")
    start, end = offsets
    if end - start != prod(shape) * DTYPE_BYTES[dtype]:
        _damaged(
            path, f"tensor {_shown(name)} takes {end - start:,} bytes, which its shape doesn't"
        )
    return TensorInfo(path, name, dtype, shape, data_start + start, data_start + end)


def _sizes(values: object) -> tuple[int, ...] | None:
    """Return a list of sizes as a tuple, or None if it is something else."""
    if not isinstance(values, list) or len(values) > _MAX_DIMENSIONS:
        return None
    if not all(type(value) is int and 0 <= value <= _MAX_SIZE for value in values):
        return None
    return tuple(values)


def _shown(name: str) -> str:
    return clean_text(name)[:_MAX_SHOWN]


def _damaged(path: Path, what: str, cause: Exception | None = None) -> NoReturn:
    message = f"{_name(path)} is damaged: {what}; download it again."
    raise CheckpointError(message) from cause
