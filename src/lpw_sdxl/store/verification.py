"""The check of an entry's files against its manifest: names, sizes, contents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum, auto
from pathlib import Path
from typing import NoReturn

from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.store.manifest import MANIFEST_FILE, EntryManifest
from lpw_sdxl.weights.files import FileRecord, hash_file, hash_file_fast
from lpw_sdxl.weights.header import read_header

NOT_LISTED = frozenset({MANIFEST_FILE, "model.yaml"})
"""Files that a manifest can't list: itself, and the model store's own note, which is not ours."""
WEIGHTS_SUFFIX = ".safetensors"
SMALL_BYTES = 16 * 1024 * 1024  # configurations and tokenizers have less, and are quickly read

_HASH_THREADS = 4


class Depth(Enum):
    """How much of an entry's files is read to check them.

    Attributes:
        SIZES: nothing: their names and sizes are checked.
        HEADS: the small ones, and of the weights the headers.
        CONTENTS: every byte, by one digest: BLAKE3 where the manifest has it, else SHA-256.
        ALL_DIGESTS: every byte, by both.
    """

    SIZES = auto()
    HEADS = auto()
    CONTENTS = auto()
    ALL_DIGESTS = auto()


def list_files(directory: Path) -> dict[str, Path]:
    """Return every file that a manifest lists, by its path within the directory, sorted.

    Raises:
        OSError: a folder can't be read.
    """
    paths = sorted(path for path in _walk(directory) if not path.is_dir())
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    return {name: path for name, path in names.items() if name not in NOT_LISTED}


def _walk(directory: Path) -> Iterator[Path]:
    """Yield all that is in a directory; `rglob` passes over a folder that it can't read."""

    def fail(error: OSError) -> NoReturn:
        raise error

    for folder, folders, files in os.walk(directory, onerror=fail):
        yield from (Path(folder, name) for name in [*folders, *files])


def verify_files(directory: Path, manifest: EntryManifest, depth: Depth = Depth.CONTENTS) -> None:
    """Check that a directory holds exactly what its manifest lists.

    Args:
        directory: the entry's directory.
        manifest: its manifest.
        depth: how much is read.

    Raises:
        ModelError: a model's file is missing, unexpected, different or can't be read; the first
            one is named.
        AddonError: likewise, of an add-on.
    """
    try:
        flaw = _find_flaw(directory, manifest.files, depth)
    except OSError as error:
        raise manifest.unreadable(directory, error) from error
    if flaw:
        raise manifest.unusable(directory, flaw, manifest)


def begin_to_verify(directory: Path, manifest: EntryManifest, depth: Depth) -> Future[None]:
    """Check as `verify_files` does, in threads beside the caller, which leave it the interpreter.

    Returns:
        the check; its `result` waits for it, and raises what `verify_files` does.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="lpw-sdxl-verify")
    checking = pool.submit(verify_files, directory, manifest, depth)
    pool.shutdown(wait=False)  # its thread ends with the check
    return checking


def _find_flaw(directory: Path, files: Mapping[str, FileRecord], depth: Depth) -> str:
    """Return the first difference of a directory from the list of its files; empty without one."""
    found = list_files(directory)
    for name in sorted(files.keys() - found.keys()):
        return f"lacks its file {name}"
    for name in sorted(found.keys() - files.keys()):
        return f"holds {name}, which its manifest doesn't list"
    for name, path in found.items():
        size, right = path.stat().st_size, files[name].size
        if size != right:
            return f"has {size:,} bytes in {name}; {right:,} would be right"
    if depth is Depth.SIZES:
        return ""
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        checks = [pool.submit(_is_whole, path, files[name], depth) for name, path in found.items()]
        for name, check in zip(found, checks, strict=True):
            if not check.result():
                return f"has other bytes in {name} than were imported"
    return ""


def _is_whole(path: Path, record: FileRecord, depth: Depth) -> bool:
    """Return whether a file of the right size has the right bytes, as far as they are checked."""
    if depth is Depth.HEADS and record.size > SMALL_BYTES and path.suffix == WEIGHTS_SUFFIX:
        return _has_header(path)
    if record.blake3 is not None and hash_file_fast(path) != record.blake3:
        return False
    is_checked = record.blake3 is not None and depth is not Depth.ALL_DIGESTS
    return is_checked or hash_file(path) == record.sha256


def _has_header(path: Path) -> bool:
    """Return whether a file of weights begins with a header that describes a file of its size."""
    try:
        read_header(path)
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from error
        return False
    return True
