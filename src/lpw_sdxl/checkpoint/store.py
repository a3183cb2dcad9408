"""Models in BentoML's model store: published whole or not at all, found, listed, removed.

The only module of the import that knows BentoML. BentoML's own way in copies a finished directory
from the temporary folder into the store, file by file, so a kill leaves half an entry that it lists
as whole, and the disk holds everything twice. Here a directory is filled beside the store, on the
same file system, and moved in with one rename.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import bentoml
import yaml
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from bentoml.exceptions import BentoMLException

from lpw_sdxl.checkpoint.exchange import exchange
from lpw_sdxl.checkpoint.manifest import MANIFEST_FILE
from lpw_sdxl.errors import CheckpointError, ModelError

DEFAULT_TAG = "sdxl:latest"
HOW_TO_IMPORT = (
    "import one with `python model_import.py demo` or `python model_import.py checkpoint FILE`"
)

LABELS = {"project": "lpw-sdxl", "family": "sdxl"}
"""Labels of every entry; `bentoml models list` shows and filters them."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_STAGING_PREFIX = "lpw-sdxl-import-"
_LATEST_FILE = "latest"
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class StoreEntry:
    """A model in the store.

    Attributes:
        tag: `NAME:VERSION`.
        path: its model directory.
        metadata: provenance, as it was saved.
    """

    tag: str
    path: Path
    metadata: Mapping[str, object]


class Publication:
    """A model directory on its way into the store.

    Attributes:
        tag: what the entry will be called.
        directory: fill it, its manifest last; it is on the store's file system.
    """

    def __init__(self, tag: str, directory: Path, store: Path) -> None:
        self.tag = tag
        self.directory = directory
        self._store = store

    def publish(self) -> StoreEntry:
        """Move the directory into the store, in the place of an entry of the same tag.

        Every moment between is one that a kill may leave: BentoML makes the newest entry `latest`
        when the file names one that is not there, so the name comes before the entry.
        """
        name, version = self.tag.split(":")
        target = self._store / name / version
        latest = target.parent / _LATEST_FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        latest_before = latest.read_bytes() if latest.exists() else None
        try:
            self._write_latest(latest, version.encode())
            if target.exists():
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
        return find(self.tag)

    def _write_latest(self, latest: Path, version: bytes) -> None:
        """Write the file that BentoML keeps the newest entry's version in, in one move."""
        partial = self.directory.parent / _LATEST_FILE
        partial.write_bytes(version)
        partial.replace(latest)


def check_name(name: str) -> None:
    """Check a model's name.

    Raises:
        CheckpointError: it is not a name that the store can keep.
    """
    if not _NAME.fullmatch(name):
        raise CheckpointError(
            f"The name {name!r} can't be used; 1 to 63 of a-z, 0-9, '.', '_' and '-' are right, "
            "with a letter or digit first and last."
        )


def check_volume() -> None:
    """Check that a directory can be moved into the store in one step.

    Raises:
        CheckpointError: the store and the folder it is filled from are on different disks.
    """
    staging_root, store = _staging_root(), _store_directory()
    if not os.access(store, os.W_OK):
        raise CheckpointError(
            f"{store} can't be written to; set BENTOML_HOME to a folder of yours."
        )
    if staging_root.stat().st_dev != store.stat().st_dev:
        raise CheckpointError(
            f"{store} and {staging_root} are on different disks, so a model can't be moved into "
            "the store in one step; mount the volume at BENTOML_HOME itself."
        )


def make_tag(name: str, source_sha256: str) -> str:
    """Return the tag of a checkpoint: its name and the first 12 digits of its SHA-256."""
    return f"{name}:{source_sha256[:12]}"


@contextmanager
def exclusive_import() -> Iterator[Path]:
    """Hold the store's only import, and give it a folder on the store's file system to work in.

    The folder is removed at the end, and what a killed import left at the beginning. The system
    frees the lock when the process ends in any way.

    Raises:
        CheckpointError: another import is at work on the same store, or it can't be written to.
    """
    check_volume()
    staging_root = _staging_root()
    with (staging_root / f"{_STAGING_PREFIX[:-1]}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                "Another import is at work on this model store; run this one when it has ended."
            ) from error
        for leftover in staging_root.glob(f"{_STAGING_PREFIX}*/"):
            shutil.rmtree(leftover, ignore_errors=True)
        workshop = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=staging_root))
        try:
            yield workshop
        finally:
            shutil.rmtree(workshop, ignore_errors=True)


def prepare_publication(tag: str, metadata: Mapping[str, object], workshop: Path) -> Publication:
    """Give a model directory to fill and publish, within the folder of `exclusive_import`."""
    # BentoML writes its model.yaml into a store of one entry, which is then filled.
    scratch = ModelStore(workshop / "store")
    (workshop / "store").mkdir()
    with (
        _temporary_files_in(workshop),
        bentoml.models.create(tag, labels=LABELS, metadata=dict(metadata), _model_store=scratch),
    ):
        pass
    return Publication(tag, Path(scratch.get(tag).path), _store_directory())


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Have BentoML make its temporary folder where a killed import is cleaned up after."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def store_volume() -> Path:
    """Return a directory on the file system that the store is on."""
    return _store_directory()


def find(tag: str) -> StoreEntry:
    """Return a model of the local store; BentoCloud is not asked.

    Args:
        tag: `NAME` or `NAME:latest` for the newest import, else `NAME:VERSION`.

    Raises:
        ModelError: there is none, or the store can't read it.
    """
    name, _, version = tag.partition(":")
    if not _NAME.fullmatch(name) or (version and not _NAME.fullmatch(version)):
        raise ModelError(f"{tag!r} is no model tag; NAME or NAME:VERSION is right.")
    try:
        # BentoML's own store of this process: in an image, the one inside the bento.
        model = bentoml.models.get(tag)
    except BentoMLException as error:
        raise _not_found(tag) from error
    except Exception as error:  # a damaged model.yaml may raise anything
        raise ModelError(
            f"The store's entry of {tag} can't be read; import its checkpoint again with --force."
        ) from error
    if version not in ("", "latest", model.tag.version):  # BentoML completes a version's beginning
        raise _not_found(tag)
    return StoreEntry(str(model.tag), Path(model.path), model.info.metadata)


def list_entries() -> list[StoreEntry]:
    """Return every model of the store that this project imported, by name and age.

    What BentoML can't read is left out, unless it has our manifest: then it is ours, and damaged.
    """
    entries = []
    for path in sorted(_store_directory().glob("*/*/")):
        tag = f"{path.parent.name}:{path.name}"
        try:
            model = bentoml.models.get(tag)
        except Exception:  # noqa: BLE001 - a foreign or broken file may raise anything
            if (path / MANIFEST_FILE).is_file():
                entries.append((path.parent.name, 0.0, StoreEntry(tag, path, {})))
            continue
        if model.info.labels.get("project") == LABELS["project"]:
            age = model.creation_time.timestamp()
            entries.append((model.tag.name, age, StoreEntry(tag, path, model.info.metadata)))
    return [entry for _, _, entry in sorted(entries, key=lambda known: known[:2])]


def remove(tag: str) -> str:
    """Remove a model, damaged or not, and return its full tag.

    Raises:
        ModelError: there is none.
    """
    try:
        entry = find(tag)
    except ModelError:
        damaged = next((entry for entry in list_entries() if entry.tag == tag), None)
        if damaged is None:
            raise
        entry = damaged
    # BentoML deletes file by file, and only what it can read. In one move first: a kill leaves no
    # half of a model.
    trash = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=_staging_root()))
    entry.path.rename(trash / entry.path.name)
    shutil.rmtree(trash)
    _forget_version(entry.path)
    return entry.tag


def _forget_version(path: Path) -> None:
    """Leave no name without versions, and let BentoML find the newest of those that are left."""
    latest = path.parent / _LATEST_FILE
    if not any(path.parent.glob("*/")):
        shutil.rmtree(path.parent)
    elif latest.is_file() and latest.read_text(encoding="utf-8").strip() == path.name:
        latest.unlink()


def served_tag(setting: str, argument: str, folder: Path) -> str:
    """Return the tag to serve: the setting, else the build's argument, else the bento's own model.

    Args:
        setting: `LPW_SDXL_MODEL`, or empty.
        argument: `bentoml build --arg model=TAG`, or empty.
        folder: where service.py lies; in a bento, `bento.yaml` lies above it.
    """
    if setting or argument:
        return setting or argument
    bento_file = folder.parent / "bento.yaml"
    if bento_file.is_file():
        services = yaml.safe_load(bento_file.read_text(encoding="utf-8"))["services"]
        return str(services[0]["models"][0]["tag"])
    return DEFAULT_TAG


def _not_found(tag: str) -> ModelError:
    """Say that a model is not there, and what is."""
    others = [entry.tag for entry in list_entries()]
    if others:
        return ModelError(
            f"No model {tag} is in the store, which has {', '.join(others[-_NAMED_AT_MOST:])}; "
            "name one of them (the service takes it from LPW_SDXL_MODEL), or import another."
        )
    return ModelError(f"No model {tag} is in the store; {HOW_TO_IMPORT}.")


def _store_directory() -> Path:
    return Path(BentoMLContainer.model_store_dir.get())


def _staging_root() -> Path:
    return Path(BentoMLContainer.tmp_bento_store_dir.get())
