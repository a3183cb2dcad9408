"""A folder of entries on a volume, NAME/VERSION/ each, read without BentoML and without a write.

The volume may be mounted read-only, be another user's, and be read by many processes at once. What
is half-made (no manifest) or has another name than entries have, as `lost+found`, is no entry.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.errors import LpwSdxlError, SettingsError
from lpw_sdxl.settings import is_in_container
from lpw_sdxl.store.command import import_command
from lpw_sdxl.store.kind import kind_of_store_name
from lpw_sdxl.store.manifest import MANIFEST_FILE, Manifest, read_manifest
from lpw_sdxl.store.unreadable import why_unreadable

VARIABLE = "LPW_SDXL_STORE"
LATEST_FILE = "latest"
"""Holds the version of a name that is meant where none is said."""
NEWEST = ("", "latest")
"""Versions of a tag that stand for the newest."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")

logger = logging.getLogger(__name__)


def is_name(text: str) -> bool:
    """Return whether a folder of this name can be an entry's name or version."""
    return _NAME.fullmatch(text) is not None


def entries_folder(folder: Path) -> Path:
    """Return the folder that holds NAME/VERSION/: the one given, or `models` in a BENTOML_HOME.

    Args:
        folder: the setting `LPW_SDXL_STORE`; it is there.

    Raises:
        OSError: it can't be read.
    """
    models = folder / "models"
    if not models.is_dir() or _holds_entries(folder):
        return folder
    return models if _holds_entries(models) or (folder / "bentos").is_dir() else folder


@dataclass(frozen=True)
class Volume:
    """The models and add-ons of a folder.

    Attributes:
        folder: that holds NAME/VERSION/; it can be read.
    """

    folder: Path

    def model_names(self) -> list[str]:
        """Return the names of which there is a model that is whole; what is closed has none."""
        with _readable(self.folder):
            names = [name for name in _folders(self.folder) if kind_of_store_name(name) is None]
            return [name for name in names if _where_open(_whole, self.folder / name)]

    def warn_of_closed_addons(self) -> None:
        """Log which add-ons are left out because their folder is closed."""
        with _readable(self.folder):
            for name in _folders(self.folder):
                if kind_of_store_name(name) is not None:
                    _where_open(_entries, self.folder / name)

    def find_model(self, tag: str) -> Path | None:
        """Return the directory of a model, or None if there is none.

        Args:
            tag: `NAME:VERSION`, or `NAME` or `NAME:latest` for the newest.

        Raises:
            ModelError: what is there is half-made.
            SettingsError: it can't be read.
        """
        name, colon, version = tag.partition(":")
        is_other = kind_of_store_name(name) is not None or (colon and not version)
        with _readable(self.folder):
            if is_other or name not in _folders(self.folder):
                return None
            versions = _folders(self.folder / name)
            directory = self.folder / name / version
            if version in NEWEST and versions:
                directory = _newest(self.folder / name) or self.folder / name / versions[-1]
            if directory.name not in versions:
                return None
            if not _is_whole(directory):
                what = f"in {self.folder} has no {MANIFEST_FILE}, so it is half-made"
                raise Manifest.unusable(directory, what)
        return directory


def open_volume(folder: Path | None) -> Volume | None:
    """Return what the setting `LPW_SDXL_STORE` names, or None without it.

    Raises:
        SettingsError: it can't be read.
    """
    if folder is None:
        return None
    folder = folder.absolute()
    with _readable(folder):
        try:
            os.listdir(folder)
        except FileNotFoundError as error:
            raise SettingsError(
                f"{VARIABLE} names {folder}, which is not there; mount a volume there that has "
                f"models, or {how_to_fill()}"
            ) from error
        return Volume(entries_folder(folder))


def how_to_fill() -> str:
    """Return the end of a sentence about a folder without a model."""
    if is_in_container():
        return (
            "run this image once, with the volume mounted there for writing, with the command "
            f"`{import_command('checkpoint civitai:VERSION_ID')}` (a file on the volume or an "
            f"https URL will do, too) or `{import_command('demo')}`"
        )
    return f"fill it with `{import_command('demo')}` or `{import_command('checkpoint FILE')}`"


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Explain what can't be read.

    Raises:
        SettingsError: a read within the block failed.
    """
    try:
        yield
    except OSError as error:
        reason = why_unreadable(folder, error)
        raise SettingsError(f"{VARIABLE} names {folder}, and {reason}") from error


def _folders(folder: Path) -> list[str]:
    """Return the folders in a folder whose names entries can have, sorted."""
    return sorted(name for name in os.listdir(folder) if is_name(name) and (folder / name).is_dir())


def _holds_entries(folder: Path) -> bool:
    return any(_where_open(_whole, folder / name) for name in _folders(folder))


def _is_whole(directory: Path) -> bool:
    return (directory / MANIFEST_FILE).is_file()


def _entries(directory: Path) -> list[Path]:
    """Return the entries of a name, half-made ones too."""
    return [directory / version for version in _folders(directory)]


def _whole(directory: Path) -> list[Path]:
    """Return the entries of a name that have a manifest."""
    return [path for path in _entries(directory) if _is_whole(path)]


def _where_open(read: Callable[[Path], list[Path]], directory: Path) -> list[Path]:
    """Return the entries of a name; none where its folder is closed, which may be none of ours."""
    try:
        return read(directory)
    except PermissionError as error:
        is_addon = kind_of_store_name(directory.name) is not None
        level = logging.WARNING if is_addon else logging.DEBUG
        logger.log(level, "left out: %s", why_unreadable(directory, error))
        return []


def _newest(directory: Path) -> Path | None:
    """Return the entry of a name that `latest` names, else the one imported last, if any."""
    whole = _whole(directory)
    latest = directory / LATEST_FILE
    named = latest.read_text("utf-8", "replace").strip() if latest.is_file() else ""
    return next(
        (path for path in whole if path.name == named), max(whole, key=_created, default=None)
    )


def _created(directory: Path) -> str:
    """Return when an entry was imported; of a damaged one, long ago."""
    try:
        return read_manifest(directory).created
    except LpwSdxlError:
        return ""
