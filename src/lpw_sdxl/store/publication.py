"""Models and add-ons on their way into the store and out of it: whole or not at all.

BentoML's own way in copies a finished directory from the temporary folder into the store, file by
file, so a kill leaves half an entry that it lists as whole, and the disk holds everything twice.
Here a directory is filled beside the store, on the same file system, and moved in with one rename.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import bentoml
from bentoml._internal.models import ModelStore

from lpw_sdxl.errors import CheckpointError, ModelError
from lpw_sdxl.store.entries import (
    KIND_LABEL,
    LABELS,
    StoreEntry,
    find_entry,
    list_entries,
    staging_root,
    store_directory,
    store_variable,
)
from lpw_sdxl.store.exchange import ASIDE_SUFFIX, exchange
from lpw_sdxl.store.kind import kind_of_store_name
from lpw_sdxl.store.manifest import MANIFEST_FILE, EntryManifest, write_manifest
from lpw_sdxl.store.volume import LATEST_FILE, VARIABLE

_STAGING_PREFIX = "lpw-sdxl-import-"
_SCRATCH_STORE = "store"
FOLDER_MODE, FILE_MODE = 0o755, 0o644
"""Of entries: every user may read them, their owner write."""


@dataclass(frozen=True)
class Publication:
    """A model directory on its way into the store.

    Attributes:
        tag: what the entry will be called.
        directory: fill it, its manifest last; it is on the store's file system.
    """

    tag: str
    directory: Path

    def publish(self) -> StoreEntry:
        """Move the directory into the store, in the place of an entry of the same tag.

        Every user may read it then, whatever the umask: another one's service may serve it.

        Every moment between is one that a kill may leave: BentoML makes the newest entry `latest`
        when the file names one that is not there, so the name comes before the entry.
        """
        name, version = self.tag.split(":")
        target = store_directory() / name / version
        latest = target.parent / LATEST_FILE
        for path in [self.directory, *self.directory.rglob("*")]:
            open_to_all(path)
        target.parent.mkdir(exist_ok=True)
        open_to_all(target.parent)
        latest_before = latest.read_bytes() if latest.exists() else None
        try:
            self._write_latest(latest, version.encode())
            if target.exists():
                with _image_layers_named(self.tag):
                    exchange(self.directory, target)
            else:
                self.directory.rename(target)
        except BaseException:
            if latest_before is not None:
                self._write_latest(latest, latest_before)
            else:
                latest.unlink(missing_ok=True)
                with suppress(OSError):  # it is not empty: other versions are there
                    target.parent.rmdir()
            raise
        return find_entry(self.tag)

    def _write_latest(self, latest: Path, version: bytes) -> None:
        """Write the file that BentoML keeps the newest entry's version in, in one move."""
        partial = self.directory.parent / LATEST_FILE
        partial.write_bytes(version)
        open_to_all(partial)
        partial.replace(latest)


def open_to_all(path: Path) -> None:
    """Open a file or a folder of this user to every reader, whatever the umask."""
    # Some network file systems have one mode for all, that of the mount, and refuse another.
    with suppress(PermissionError):
        path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)


def check_volume() -> None:
    """Check that a directory can be moved into the store in one step.

    Raises:
        CheckpointError: the store and the folder it is filled from are on different disks.
    """
    staging, store = staging_root(), store_directory()
    if not os.access(store, os.W_OK):
        raise CheckpointError(
            f"{store} can't be written to; set {store_variable()} to a folder of yours."
        )
    if staging.stat().st_dev != store.stat().st_dev:
        raise CheckpointError(
            f"{store} and {staging} are on different disks, so a model can't be moved into "
            f"the store in one step; mount the volume at {store_variable()} itself."
        )


@contextmanager
def exclusive_import() -> Iterator[Path]:
    """Lock the store for one import, and yield a folder on its file system to work in.

    The folder is removed at the end, and what a killed import left at the beginning. The system
    frees the lock when the process ends in any way.

    Raises:
        CheckpointError: another import is at work on the same store, or it can't be written to.
    """
    check_volume()
    root = staging_root()
    with (root / f"{_STAGING_PREFIX[:-1]}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                "Another import is at work on this model store; try again when it has ended."
            ) from error
        for leftover in root.glob(f"{_STAGING_PREFIX}*/"):
            _restore_replaced(leftover)
            shutil.rmtree(leftover, ignore_errors=True)
        workshop = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=root))
        try:
            yield workshop
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def rewrite_manifest(directory: Path, manifest: EntryManifest, workshop: Path) -> None:
    """Put another manifest into an entry in one move.

    Args:
        directory: the entry's.
        manifest: the new one; the entry's files stay as they are.
        workshop: of `exclusive_import`. In the entry a half-written file would be a damage.
    """
    write_manifest(workshop, manifest)
    written = workshop / MANIFEST_FILE
    open_to_all(written)
    written.replace(directory / MANIFEST_FILE)


def _restore_replaced(leftover: Path) -> None:
    """Put back an entry that a replacement by renames had taken out when it was killed."""
    for aside in leftover.glob(f"{_SCRATCH_STORE}/*/*{ASIDE_SUFFIX}"):
        target = store_directory() / aside.parent.name / aside.name.removesuffix(ASIDE_SUFFIX)
        if not target.exists():
            aside.rename(target)


@contextmanager
def _image_layers_named(tag: str) -> Iterator[None]:
    """Explain why an entry can't be moved that came with a container's image.

    Raises:
        ModelError: the file system can't move it.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise ModelError(
            f"{tag} is part of a container's image and can't be replaced or removed there; import "
            f"under another --name, or set {VARIABLE} to a folder on a volume."
        ) from error


def prepare_publication(tag: str, metadata: Mapping[str, object], workshop: Path) -> Publication:
    """Create a directory to fill and publish, within the folder of `exclusive_import`."""
    # BentoML writes its model.yaml into a store of one entry, which is then filled.
    scratch_folder = workshop / _SCRATCH_STORE
    scratch_folder.mkdir()
    scratch = ModelStore(scratch_folder)
    kind = kind_of_store_name(tag)
    labels = LABELS | ({KIND_LABEL: kind.value} if kind else {})
    create = bentoml.models.create
    with (
        _temporary_files_in(workshop),
        create(tag, labels=labels, metadata=dict(metadata), _model_store=scratch),
    ):
        pass
    return Publication(tag, Path(scratch.get(tag).path))


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Move BentoML's temporary folder to where a killed import is cleaned up after."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def remove(tag: str) -> str:
    """Remove a model or an add-on, damaged or not, and return its full tag.

    Raises:
        ModelError: there is none.
    """
    ours = {entry.tag: entry for entry in list_entries()}
    entry = ours.get(tag) or find_entry(tag)
    if entry.tag not in ours:
        raise ModelError(
            f"{entry.tag} is no import of LPW-SDXL; `bentoml models delete {entry.tag}` removes it."
        )
    with exclusive_import() as workshop:
        # BentoML deletes file by file, and only what it can read. In one move first: a kill leaves
        # no half of a model.
        with _image_layers_named(entry.tag):
            entry.path.rename(workshop / "removed")
        _forget_version(entry.path)
    return entry.tag


def _forget_version(path: Path) -> None:
    """Remove a name without versions, or the note of a latest version that is gone."""
    latest = path.parent / LATEST_FILE
    if not any(path.parent.glob("*/")):
        shutil.rmtree(path.parent)
    elif latest.is_file() and latest.read_text(encoding="utf-8").strip() == path.name:
        latest.unlink()  # BentoML would mend it, but for a damaged model beside it
