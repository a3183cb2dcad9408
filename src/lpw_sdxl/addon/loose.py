"""An add-on as a file of its author's, in a folder; nothing was imported.

It is checked as an import checks it, and read into the same tensors, each time that they are
needed. No torch until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lpw_sdxl import __version__
from lpw_sdxl.addon.manifest import AddonManifest
from lpw_sdxl.addon.opened import open_for
from lpw_sdxl.addon.opened_addon import OpenedAddon
from lpw_sdxl.conditioning.mentions import NAME
from lpw_sdxl.errors import AddonError
from lpw_sdxl.lora.peft_config import CONFIG_FILE
from lpw_sdxl.lora.targets import TargetModules
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.files import file_stamp, hash_file
from lpw_sdxl.weights.header import CheckpointHeader, read_header
from lpw_sdxl.weights.text import clean_text

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "folder"
"""Where such a file comes from, as its origin says."""


def stamp_with_config(path: Path) -> str:
    """Return the stamp of a file, and of the PEFT configuration beside it, which may be none."""
    return f"{file_stamp(path)} {file_stamp(path.with_name(CONFIG_FILE))}"


@dataclass(frozen=True)
class LooseAddon:
    """A file that was read and found good.

    Attributes:
        manifest: what it is; it lists no files.
        file: the file.
        stamp: its `stamp_with_config` when it was read.
        targets: the modules of the model that it fits.
    """

    manifest: AddonManifest
    file: Path
    stamp: str
    targets: TargetModules

    @property
    def key(self) -> str:
        """Return its name in a store and its file's SHA-256, with that of its configuration."""
        manifest = self.manifest
        return f"{manifest.tag}:loose:{manifest.origin.sha256}:{manifest.details.alpha_file}"

    def is_current(self) -> bool:
        """Return whether the file and its configuration are still what was read."""
        return stamp_with_config(self.file) == self.stamp

    def load(self, file: Path, *, is_checked: bool = False) -> Mapping[str, Tensor]:
        """Read its tensors, under the names that the store gives them.

        Args:
            file: as in `Addon.load`.
            is_checked: likewise; else its bytes are, unless its stamp is that of when it was read.

        Raises:
            AddonError: they are not what was read.
            CheckpointError: likewise.
        """
        header = self._read_header(file)
        is_same = is_checked or file_stamp(file) == self.stamp.partition(" ")[0]
        if not is_same and hash_file(file) != self.manifest.origin.sha256:
            raise AddonError(f"{header.name} was written over since it was read.")
        opened = open_for(self.manifest.kind, header, self.targets)
        if opened.details != self.manifest.details:
            raise AddonError(
                f"{CONFIG_FILE} beside {header.name} is another one since it was read."
            )
        return opened.load()

    def _read_header(self, file: Path) -> CheckpointHeader:
        """Read the header of the bytes in `file`, under the name that the file has in its folder.

        The configuration is looked for beside `self.file`, and messages name that.
        """
        return replace(read_header(file), path=self.file)


def read_loose(
    kind: AddonKind,
    name: str,
    path: Path,
    targets: TargetModules,
    note: Callable[[int], None] | None = None,
) -> LooseAddon:
    """Read a whole file: its header, its SHA-256, its numbers.

    Args:
        kind: what it must be.
        name: by which requests will name it.
        path: the file.
        targets: the modules of the model that is served.
        note: called every megabyte of the hash with the bytes so far; may raise to stop.

    Raises:
        AddonError: it is of another kind, doesn't fit, or its numbers can't be used.
        CheckpointError: it is damaged, not whole, or no safetensors file.
    """
    if kind is AddonKind.EMBEDDING and not NAME.fullmatch(name):
        raise AddonError(
            f"{path.name} has a name that no prompt can hold as a word; letters A to Z, digits, "
            "'.', '_' and '-' would be right."
        )
    stamp = stamp_with_config(path)
    header = read_header(path)
    opened = open_for(kind, header, targets)
    sha256 = hash_file(path, note)
    opened.check()
    if stamp_with_config(path) != stamp:
        raise AddonError(f"{path.name} changed while it was read.")
    return LooseAddon(_describe(opened, name, sha256), path, stamp, targets)


def _describe(opened: OpenedAddon, name: str, sha256: str) -> AddonManifest:
    header = opened.header
    return AddonManifest(
        name=name,
        origin=Origin(SOURCE, clean_text(header.path.name), header.file_size, sha256, opened.notes),
        created=datetime.now(UTC).isoformat(),
        importer_version=__version__,
        files={},
        kind=opened.kind,
        fits=opened.fits,
        fits_name=opened.fits_name,
        details=opened.details,
    )
