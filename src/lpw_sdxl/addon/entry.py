"""Add-ons that were imported: entries of a model store; no torch until one is read."""

# ruff: noqa: PLC0415 - reading tensors needs torch, and comes last

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lpw_sdxl.addon.manifest import AddonManifest, read_addon_manifest
from lpw_sdxl.addon.registry import Finding, Found
from lpw_sdxl.conditioning.mentions import NAME
from lpw_sdxl.errors import AddonError, UnfitAddonError
from lpw_sdxl.store.kind import AddonKind, kind_of_store_name, slug
from lpw_sdxl.store.manifest import MANIFEST_FILE
from lpw_sdxl.store.verification import Depth, verify_files
from lpw_sdxl.weights.files import file_stamp

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


class Fits(NamedTuple):
    """The demands of the served model, as manifests have them in `fits`; None for none.

    Attributes:
        lora: signature of its modules (`lora.targets.signature`).
        embedding: widths of its text encoders, as `embedding.preflight` writes them.
    """

    lora: str | None = None
    embedding: str | None = None

    def of(self, kind: AddonKind) -> str | None:
        """Return what add-ons of a kind must fit."""
        return {AddonKind.LORA: self.lora, AddonKind.EMBEDDING: self.embedding}.get(kind)


@dataclass(frozen=True)
class StoredAddon:
    """An entry whose files have the sizes that they were imported with.

    Attributes:
        manifest: what it is.
        path: its directory.
    """

    manifest: AddonManifest
    path: Path

    @property
    def file(self) -> Path:
        """Return its file of tensors, in safetensors."""
        return self.path / self.manifest.kind.file_name

    @property
    def key(self) -> str:
        """Return the entry's tag with the SHA-256 of what was made of its source."""
        return f"{self.manifest.tag}:{self.manifest.files[self.manifest.kind.file_name].sha256}"

    def is_current(self) -> bool:
        """Return whether the file is there."""
        return self.file.is_file()

    def load(self, file: Path, *, is_checked: bool = False) -> Mapping[str, Tensor]:
        """Read its tensors.

        Args:
            file: as in `Addon.load`.
            is_checked: likewise; else the bytes are checked against the manifest.

        Raises:
            AddonError: they are not as they were imported.
        """
        from safetensors.torch import load

        # Not mapped into memory: if a mounted file were rewritten, the process would be killed.
        content = file.read_bytes()
        name = self.manifest.kind.file_name
        right = self.manifest.files[name].sha256
        if not is_checked and hashlib.sha256(content).hexdigest() != right:
            what = f"has other bytes in {name} than were imported"
            raise self.manifest.unusable(self.path, what, self.manifest)
        return load(content)


class EntrySource:
    """The entries of some folders, read again where a manifest is another one.

    What is damaged or doesn't fit is left out with a warning, once. Where several versions of a
    name can be used, the one imported last serves.

    Args:
        find: lists the entries' directories, as they are now.
        fits: what the served model takes.
    """

    def __init__(self, find: Callable[[], Iterable[Path]], fits: Fits) -> None:
        self._find = find
        self._fits = fits
        self._read: dict[Path, _ReadEntry] = {}
        self._is_out_of_reach = False

    def look(self) -> Finding:
        """Return what is there now; where that can't be known, what was there last."""
        try:
            directories = [*self._find()]
        except OSError as error:
            if not self._is_out_of_reach:
                logger.warning("a store can't be read (%s); what it held is kept", error)
            self._is_out_of_reach = True
        else:
            self._is_out_of_reach = False
            self._read = {directory: self._look_at(directory) for directory in directories}
        return self.find()

    def find(self) -> Finding:
        """Return what was there at the last look."""
        known: dict[tuple[AddonKind, str], StoredAddon] = {}
        others: dict[str, Found] = {}
        for directory, (_, addon, reason, is_unfit) in self._read.items():
            if addon is None:
                # Named for the folder above, as the store does: the manifest may be unreadable.
                kind = kind_of_store_name(directory.parent.name)
                if kind is not None:
                    name = directory.parent.name.removeprefix(kind.prefix)
                    others[directory.parent.name] = Found(kind, name, name, reason, not is_unfit)
                continue
            place = addon.manifest.kind, slug(addon.manifest.name)
            other = known.get(place)
            if other is None or other.manifest.created <= addon.manifest.created:
                known[place] = addon
        for kind, name in known:
            others.pop(kind.prefix + name, None)  # another version of it can be used
        usable = (
            Found(one.manifest.kind, one.manifest.name, one.manifest.name, one)
            for one in known.values()
        )
        return (*usable, *others.values())

    def _look_at(self, directory: Path) -> _ReadEntry:
        # The tensors may come after the manifest, where a folder is copied file by file.
        kind = kind_of_store_name(directory.parent.name) or AddonKind.LORA
        files = (directory / MANIFEST_FILE, directory / kind.file_name)
        stamp = " ".join(map(file_stamp, files))
        before = self._read.get(directory)
        if before is not None and before.stamp == stamp:
            return before
        try:
            return _ReadEntry(stamp, _read(directory, self._fits), "")
        except UnfitAddonError as error:
            logger.warning("left out: %s", error)
            return _ReadEntry(stamp, None, str(error), is_unfit=True)
        except AddonError as error:
            logger.warning("left out: %s", error)
            return _ReadEntry(stamp, None, str(error))
        except OSError as error:
            if before is None or before.stamp:
                logger.warning("%s can't be read now: %s", directory.parent.name, error)
            return _ReadEntry("", None, str(error))  # looked at again the next time


class _ReadEntry(NamedTuple):
    """An entry as it was read, its files' stamps then, and why it can't be used."""

    stamp: str
    addon: StoredAddon | None
    reason: str
    is_unfit: bool = False


def _read(directory: Path, fits: Fits) -> StoredAddon:
    """Read an entry; check an embedding's bytes, which are few, and a LoRA's sizes.

    A LoRA's bytes are checked when it is first asked for.
    """
    manifest = read_addon_manifest(directory)
    if manifest.kind is AddonKind.EMBEDDING and not NAME.fullmatch(manifest.name):
        raise AddonError(
            f"The embedding {manifest.name!r} has a name that no prompt can hold as a word; import "
            "its file again with a --name of letters A to Z, digits, '.', '_' and '-'."
        )
    is_small = manifest.kind is AddonKind.EMBEDDING
    verify_files(directory, manifest, Depth.CONTENTS if is_small else Depth.SIZES)
    wanted = fits.of(manifest.kind)
    if wanted is not None and manifest.fits != wanted:
        raise UnfitAddonError(
            f"The {manifest.kind.noun} {manifest.name!r} was imported for {manifest.fits_name} "
            "and doesn't fit the model that is served; import its file again with --model TAG."
        )
    return StoredAddon(manifest, directory)
