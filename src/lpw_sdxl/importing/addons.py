"""What the import of an add-on has of its own: its name, the model that it fits."""

# ruff: noqa: PLC0415 - what knows the store is imported by the steps that need it

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lpw_sdxl import __version__
from lpw_sdxl.addon.manifest import AddonDetails, AddonManifest, read_addon_manifest
from lpw_sdxl.conditioning.mentions import NAME
from lpw_sdxl.download.filename import DEFAULT_NAME
from lpw_sdxl.errors import AddonError
from lpw_sdxl.importing.addon_rows import addon_rows
from lpw_sdxl.importing.console import Row
from lpw_sdxl.importing.importer import EntryDraft, ImportOptions
from lpw_sdxl.lora.plan import LoraChoices
from lpw_sdxl.second_pass import find_upscaler
from lpw_sdxl.store.kind import AddonKind, kind_of_store_name, slug, store_name
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.files import record_file
from lpw_sdxl.weights.header import CheckpointHeader, read_header
from lpw_sdxl.weights.progress import Progress
from lpw_sdxl.weights.text import clean_text

if TYPE_CHECKING:
    from lpw_sdxl.addon.opened_addon import OpenedAddon

MAX_NAME = 100
"""Characters of a name."""

_ALPHA = "/alpha"
_ALPHAS_AT_MOST = 64

_FORBIDDEN = frozenset("<>:/\\")
"""What a name can't hold: `<lora:NAME:1>` could not be read, or it would look like a path."""


@dataclass(frozen=True)
class AddonImporter:
    """The import of a LoRA, an embedding or an upscaler.

    Attributes:
        kind: what the file must be.
        options: those of every kind; the name is as users will write it, and the file's name
            without its ending if none is given.
        model: tag of the model that it must fit; None for any of the store's, or SDXL's own.
        alpha: of a LoRA's modules whose tensors state none; None for what its notes state.
        ignore_unknown: whether a LoRA's tensors without a place are left out.
        second: the other file of an embedding that is a pair of files; None for one file.
    """

    kind: AddonKind
    options: ImportOptions = field(default_factory=ImportOptions)
    model: str | None = None
    alpha: float | None = None
    ignore_unknown: bool = False
    second: Path | None = None

    def open(self, path: Path, full_size: int | None = None) -> OpenedAddon:
        """Read and judge a file's header, and refuse a bad name before more is downloaded."""
        from lpw_sdxl.addon.opened import open_addon, open_pair

        if self.second is None:
            choices = LoraChoices(self.alpha, self.ignore_unknown)
            opened = open_addon(self.kind, path, self.model, full_size, choices)
        else:
            opened = open_pair(path, self.second, self.model, full_size)
        self.choose_name(opened.header)
        return opened

    def rows(self, opened: OpenedAddon) -> list[Row]:
        """List what a file is, one fact a row."""
        rows = addon_rows(opened.header, opened.kind, opened.details, opened.notes)
        return [*rows, ("fits", opened.fits_name)]

    def store_bytes(self, opened: OpenedAddon) -> int:
        """Return about the size of what will be in the store."""
        return opened.header.file_size

    def check_name(self, opened: OpenedAddon | None) -> None:
        """Refuse a name that is another one's in the store, as `a+b` and `a b` are.

        Raises:
            AddonError: the name is taken.
        """
        from lpw_sdxl.store.entries import list_entries

        if opened is None:
            return
        name = self.choose_name(opened.header)
        for entry in list_entries(lambda known: known == store_name(self.kind, name)):
            other = str(entry.metadata.get("name", name))
            if other.lower() != name.lower():
                raise AddonError(
                    f"The name {name!r} is the same in the store as {other!r}, which is taken by "
                    f"{entry.tag}: choose another --name, or --name {other!r} for a new version of "
                    "it."
                )

    def find(self, metadata: Mapping[str, str], opened: OpenedAddon | None) -> AddonManifest | None:
        """Find the whole entry with these metadata; without a file or a name, under any name.

        Raises:
            AddonError: it was imported for another model, or with another alpha.
        """
        from lpw_sdxl.store.entries import find_whole

        if opened is None and (self.model is not None or self.alpha is not None):
            return None  # only the file decides whether it fits the model or takes the alpha
        name = self.options.name if opened is None else self.choose_name(opened.header)
        wanted = None if name is None else store_name(self.kind, name)

        def is_named(known: str) -> bool:
            return kind_of_store_name(known) is self.kind and wanted in (None, known)

        known = find_whole(read_addon_manifest, is_named, metadata)
        if known is not None and opened is not None and known.fits != opened.fits:
            raise AddonError(
                f"{known.tag} is imported for {known.fits_name}, and {opened.fits_name} is asked "
                "for; --force replaces it, and --name gives the new one another name."
            )
        if known is not None:
            self._check_alpha(known, opened)
        return known

    def _check_alpha(self, known: AddonManifest, opened: OpenedAddon | None) -> None:
        """Refuse an entry whose alpha came from the command line or from PEFT's file, but not now.

        Raises:
            AddonError: it did, or it does so only now.
        """
        there = _outside_alpha(known.details)
        asked = _outside_alpha(opened.details) if opened is not None else ""
        # Without the file, nothing is known of a configuration beside it.
        if there != asked and (opened is not None or known.details.asked_alpha is not None):
            own = "the file's own alpha"
            raise AddonError(
                f"{known.tag} is imported with {there or own}, and {asked or own} is asked for; "
                "--force replaces it, and --name gives the new one another name."
            )

    def draft(self, opened: OpenedAddon) -> EntryDraft[AddonManifest]:
        """Plan the entry, which holds one file."""

        def describe(origin: Origin) -> AddonManifest:
            return AddonManifest(
                kind=opened.kind,
                name=self.choose_name(opened.header),
                origin=origin,
                fits=opened.fits,
                fits_name=opened.fits_name,
                details=opened.details,
                created=datetime.now(UTC).isoformat(timespec="microseconds"),
                importer_version=__version__,
                files={},
            )

        def fill(directory: Path, manifest: AddonManifest, progress: Progress) -> AddonManifest:
            file = directory / opened.kind.file_name
            opened.write(file, progress)
            alphas = _read_alphas(file) or opened.details.alphas
            details = replace(opened.details, alphas=alphas)
            return replace(manifest, files={file.name: record_file(file)}, details=details)

        return EntryDraft(opened.header.file_size, describe, fill)

    def choose_name(self, header: CheckpointHeader) -> str:
        """Return the name that requests will use: the one asked for, else that of the file.

        Raises:
            AddonError: it can't be written in a prompt, or nothing of it is left in the store.
        """
        if self.options.name is None and header.name == DEFAULT_NAME:
            raise AddonError(f"{header.name} is no name for requests to use; give one with --name.")
        name = Path(header.name).stem if self.options.name is None else self.options.name
        if name != clean_text(name) or set(name) & _FORBIDDEN or not 0 < len(name) <= MAX_NAME:
            raise AddonError(
                f"The name {clean_text(name)[:MAX_NAME]!r} can't be used; 1 to {MAX_NAME} "
                "characters on one line without < > : / and \\ are right: give one with --name."
            )
        if not slug(name):
            raise AddonError(
                f"The name {name!r} has neither a letter nor a digit; give one with --name."
            )
        if self.kind is AddonKind.EMBEDDING and not NAME.fullmatch(name):
            raise AddonError(
                f"The name {name!r} can't be used for an embedding, which prompts name by a word; "
                "letters A to Z, digits, '.', '_' and '-' are right: give one with --name, such as "
                f"--name {slug(name)}."
            )
        if self.kind is AddonKind.UPSCALER and find_upscaler(name) is not None:
            raise AddonError(
                f"The name {name!r} is that of an upscaler that every server has; give another one "
                "with --name."
            )
        return name


def _outside_alpha(details: AddonDetails) -> str:
    """Return the alpha that was not in the file itself; empty for none."""
    if details.asked_alpha is not None:
        return f"--alpha {details.asked_alpha:g}"
    return f"the alpha of {details.alpha_file}" if details.alpha_file else ""


def _read_alphas(path: Path) -> tuple[float, ...]:
    """Return the different alphas of a canonical LoRA file, sorted; the first 64 of very many."""
    values = set()
    with path.open("rb") as file:
        for name, info in read_header(path).tensors.items():
            if name.endswith(_ALPHA) and info.dtype == "F32":
                file.seek(info.start)
                values.add(struct.unpack("<f", file.read(4))[0])
    return tuple(sorted(values)[:_ALPHAS_AT_MOST])
