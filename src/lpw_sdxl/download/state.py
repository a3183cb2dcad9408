"""A download's folder: its state in `download.json`, its lock, what may be removed from it.

The state never holds a URL's query: it may be a signature or lead to a private file.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from lpw_sdxl.download.filename import safe_file_name
from lpw_sdxl.download.remote import RemoteFile
from lpw_sdxl.download.urls import without_query
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.store.manifest import write_json

STATE_FILE = "download.json"
LOCK_FILE = "lock"
PARTIAL_SUFFIX = ".part"
FORMAT_VERSION = 2

_FINISHED, _PARTIAL = "finished", "partial"


@dataclass(frozen=True)
class DownloadState:
    """The state of a download, from its first byte on.

    Attributes:
        source: its public form.
        file_name: that the file has when it is whole.
        remote: the file as its source describes it.
        size: bytes of the whole file, or None while it is not known.
        validator: strong ETag or date, which changes when the server's file does.
        sha256: of the whole file once it is there, or None.
    """

    source: str
    file_name: str
    remote: RemoteFile
    size: int | None = None
    validator: str | None = None
    sha256: str | None = None

    def is_finished(self, folder: Path) -> bool:
        """Return whether the whole file is in its folder, by its size."""
        path = folder / self.file_name
        return self.sha256 is not None and path.is_file() and path.stat().st_size == self.size


def read_state(folder: Path) -> DownloadState | None:
    """Read a folder's state; None if there is none, or none that makes sense."""
    try:
        content = json.loads((folder / STATE_FILE).read_bytes())
        version, kept = content.pop("format_version"), content.pop("state")
        state = TypeAdapter(DownloadState).validate_json(json.dumps(content), strict=True)
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    is_sound = version == FORMAT_VERSION and (kept == _FINISHED) == (state.sha256 is not None)
    return state if is_sound and safe_file_name(state.file_name) == state.file_name else None


def write_state(folder: Path, state: DownloadState) -> None:
    """Write a folder's state in one move."""
    remote = replace(state.remote, url=without_query(state.remote.url))
    content = asdict(replace(state, remote=remote)) | {
        "format_version": FORMAT_VERSION,
        "state": _FINISHED if state.sha256 else _PARTIAL,
    }
    write_json(folder / STATE_FILE, content)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make a folder's renames survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, source: str) -> Iterator[None]:
    """Make a download's folder and hold its lock, which the system frees if the process dies.

    A folder that is empty at the end is removed.

    Args:
        folder: of the download, within the downloads folder.
        source: its public form, for the message.

    Raises:
        CheckpointError: another process holds it.
    """
    descriptor = _take_lock(folder, source)
    try:
        yield
    finally:
        with suppress(OSError):
            if [path.name for path in folder.iterdir()] == [LOCK_FILE]:
                (folder / LOCK_FILE).unlink()  # we hold it; `_take_lock` knows of the race
                folder.rmdir()
        os.close(descriptor)


def clear_folder(folder: Path) -> None:
    """Remove the state and every file of a download whose lock is held; the folder stays."""
    for path in folder.iterdir():
        if path.name.endswith((".safetensors", PARTIAL_SUFFIX)) or path.name == STATE_FILE:
            path.unlink()


def _take_lock(folder: Path, source: str) -> int:
    while True:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # removed meanwhile, by its last user
            descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), (folder / LOCK_FILE).stat()):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise CheckpointError(
                    f"Another download of {source} is at work; run this one when it has ended."
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
