"""Downloads: resumed where they stopped, verified, kept until they are removed.

Each source has a folder of its own in the downloads folder. A download that was finished is found
again without a request; its URL's query is never written down, printed or logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.download.hooks import DownloadHooks
from lpw_sdxl.download.http import open_client
from lpw_sdxl.download.key import Key
from lpw_sdxl.download.remote import RemoteFile
from lpw_sdxl.download.retries import Retries
from lpw_sdxl.download.source import Source
from lpw_sdxl.download.state import DownloadState, clear_folder, locked, read_state
from lpw_sdxl.download.transfer import DownloadRequest, Transfer
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.store.space import is_full

RETRY_DELAY_S = 1.0


@dataclass(frozen=True)
class Download:
    """A file that was downloaded whole.

    Attributes:
        path: where it is.
        source: the public form of where it came from.
        notes: its author's, as the source has them.
        was_there: whether it was finished earlier; then nothing was asked for.
    """

    path: Path
    source: str
    notes: AuthorNotes
    was_there: bool


def fetch(
    source: Source,
    downloads: Path,
    *,
    keys: Sequence[Key] = (),
    expected_sha256: str | None = None,
    hooks: DownloadHooks | None = None,
    retry_delay_s: float = RETRY_DELAY_S,
) -> Download:
    """Download a file into the downloads folder, or find the one that is there.

    Args:
        source: of the file.
        downloads: the folder; it is made where it is missing.
        keys: the user's, each for its own origin.
        expected_sha256: what the file's SHA-256 must be, or None.
        hooks: called on the way.
        retry_delay_s: before the second attempt; see `Retries`.

    Raises:
        UnsupportedCheckpointError: the file is of a kind that is not served.
        CheckpointError: it can't be had, is not the expected one, or there is no room for it.
    """
    hooks = hooks or DownloadHooks()
    expected_sha256 = expected_sha256.lower() if expected_sha256 else None
    folder = downloads / source.folder_name
    with _folder_errors(folder):
        download = _find(folder, source, expected_sha256)
        if download:
            return download
        with locked(folder, source.public):
            # Another process may have finished it before we had the lock.
            download = _find(folder, source, expected_sha256)
            if download:
                return download
            with _cleared_when_full(folder), open_client(keys) as client:
                remote = Retries(hooks.note, retry_delay_s).run(lambda: source.describe(client))
                _check_record(source, remote, expected_sha256)
                hooks.check_sha256(remote.sha256)
                request = DownloadRequest(source.public, remote, expected_sha256)
                retries = Retries(hooks.note, retry_delay_s)
                state = Transfer(client, request, folder, hooks, retries).run()
    return _download(folder, state, was_there=False)


def remove(download_path: Path) -> None:
    """Remove a finished download with its notes and its folder; nothing else is ever removed.

    Raises:
        CheckpointError: the path is not that of a finished download, or one is at work there.
    """
    folder = download_path.parent
    with _folder_errors(folder):
        state = read_state(folder)
        if state is None or state.sha256 is None or state.file_name != download_path.name:
            raise CheckpointError(f"{download_path} is not a download of this program; it stays.")
        with locked(folder, state.source):
            clear_folder(folder)


def _find(folder: Path, source: Source, expected_sha256: str | None) -> Download | None:
    """Return the download that was finished earlier, if there is one."""
    state = read_state(folder)
    if state is None or state.source != source.public or not state.is_finished(folder):
        return None
    if expected_sha256 and state.sha256 != expected_sha256:
        raise CheckpointError(
            f"{state.file_name} was downloaded from {state.source} with the SHA-256 "
            f"{state.sha256}, and {expected_sha256} was asked for; remove the folder {folder} to "
            "download it anew, or correct --sha256."
        )
    return _download(folder, state, was_there=True)


def _check_record(source: Source, remote: RemoteFile, expected_sha256: str | None) -> None:
    """Refuse a file that its source states another SHA-256 of than the user."""
    if expected_sha256 and remote.sha256 and remote.sha256 != expected_sha256:
        raise CheckpointError(
            f"The record of {source.public} has the SHA-256 {remote.sha256}, and {expected_sha256} "
            "was asked for; correct one of the two."
        )


def _download(folder: Path, state: DownloadState, *, was_there: bool) -> Download:
    return Download(folder / state.file_name, state.source, state.remote.notes, was_there)


@contextmanager
def _cleared_when_full(folder: Path) -> Iterator[None]:
    """Remove what has come when the disk is full: others need the room now."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            clear_folder(folder)
        raise


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise CheckpointError(
                f"The disk of {folder} is full; what had come was removed: make room, or set "
                "LPW_SDXL_DOWNLOADS to a folder on a larger disk."
            ) from error
        raise CheckpointError(
            f"{folder} can't be used ({error.strerror}); set LPW_SDXL_DOWNLOADS to a folder of "
            "yours."
        ) from error
