"""A folder on a volume as the store that the import writes to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lpw_sdxl.errors import SettingsError
from lpw_sdxl.store.entries import STAGING, store_directory, use_volume
from lpw_sdxl.store.publication import open_to_all
from lpw_sdxl.store.unreadable import why_unreadable
from lpw_sdxl.store.volume import VARIABLE, entries_folder, open_volume


@contextmanager
def volume_store(folder: Path, *, makes: bool, writes: bool) -> Iterator[None]:
    """Make a folder the model store of this process, until the block ends; a missing one is empty.

    Args:
        folder: the setting `LPW_SDXL_STORE`.
        makes: whether the folder is made if it is missing.
        writes: whether it is written to.

    Raises:
        SettingsError: it can't be made, written to or read.
    """
    folder = folder.absolute()
    if makes or (writes and folder.is_dir()):
        _prepare(folder)
    volume = open_volume(folder) if os.path.lexists(folder) else None
    with use_volume(volume.folder if volume else folder, folder / STAGING):
        yield


def check_kept() -> None:
    """Check that an import into an image's own store is not lost with the container.

    Raises:
        SettingsError: the store is on no volume.
    """
    store = store_directory()
    if not any(os.path.ismount(folder) for folder in (store, store.parent)):
        raise SettingsError(
            f"{VARIABLE} is not set, and what is imported into {store} ends with this container; "
            f"a folder on a volume that is mounted for writing, named in {VARIABLE}, would be right"
        )


def _prepare(folder: Path) -> None:
    """Make the folder and the one in it for what is being made."""
    try:
        _make(folder)
        # In a BENTOML_HOME not in `models`, where BentoML itself takes every folder for a model's.
        _make(folder / STAGING)
        inner = entries_folder(folder)
        if not os.access(inner, os.W_OK | os.X_OK):  # a read-only mount that was filled before
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(inner))
    except OSError as error:
        reason = _why_unwritable(folder, error)
        raise SettingsError(f"{VARIABLE} names {folder}, {reason}") from error


def _why_unwritable(folder: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return (
            f"which uid {os.geteuid()} can't write to; a folder that this user may write to, or "
            "the same command as a user that may, would be right"
        )
    if error.errno == errno.EROFS:
        return "which can't be written to; a volume that is mounted for writing would be right"
    if isinstance(error, FileExistsError):
        return "which is a file; a folder would be right"
    return f"and {why_unreadable(folder, error)}"


def _make(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for every user to read."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True)
    open_to_all(folder)
