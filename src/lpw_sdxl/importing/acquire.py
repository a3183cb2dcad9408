"""From SOURCE on the command line to an entry of the store, for every kind of file.

The header of a local file is judged before anything heavy is imported, and that of a download as
soon as its first bytes are there.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from lpw_sdxl.download.source import LocalSource, Source, SourceKind, parse_source
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.importing.console import ImportConsole, Row
from lpw_sdxl.importing.importer import Importer, ImportResult, Opened
from lpw_sdxl.store.manifest import AnyManifest
from lpw_sdxl.store.origin import AuthorNotes


@dataclass
class Acquisition(Generic[Opened, AnyManifest]):
    """One import from a source.

    Attributes:
        importer: of the file's kind.
        kinds: of sources, as `read_kinds` returns them.
        downloads: the folder of downloads.
        console: where it is shown.
    """

    importer: Importer[Opened, AnyManifest]
    kinds: tuple[SourceKind, ...]
    downloads: Path
    console: ImportConsole
    _shown: list[Row] = field(default_factory=list, init=False)

    def import_source(self, text: str, *, remove_source: bool = False) -> ImportResult:
        """Import what the user named.

        Args:
            text: a path, or what one of the kinds of sources takes.
            remove_source: whether a download is removed after its import.

        Raises:
            UnsupportedCheckpointError: the file is of a kind that is not served.
            CheckpointError: it can't be had or imported; the store is as it was.
            AddonError: likewise, of a LoRA or an embedding.
        """
        source = parse_source(text, self.kinds)
        if not isinstance(source, LocalSource):
            return self._import_download(source, remove_source=remove_source)
        if remove_source:
            raise not_a_download(source)
        return self._import(source.path, source.public, AuthorNotes())

    def _import_download(self, source: Source, *, remove_source: bool) -> ImportResult:
        from lpw_sdxl.download.fetch import fetch, remove
        from lpw_sdxl.download.hooks import DownloadHooks

        known = self._find(self.importer.options.sha256)
        if known is not None:
            return known
        hooks = DownloadHooks(
            progress=self.console.progress,
            check_sha256=self._leave_if_known,
            check_header=self._check_header,
            check_space=self._check_space,
            note=self.console.print_line,
        )
        try:
            fetched = fetch(
                source,
                self.downloads,
                keys=[kind.key for kind in self.kinds if kind.key is not None],
                expected_sha256=self.importer.options.sha256,
                hooks=hooks,
            )
        except _KnownEntry as known_entry:
            return known_entry.result
        if fetched.was_there:
            self.console.print_line(f"downloaded earlier: {fetched.path}")
        result = self._import(fetched.path, fetched.source, fetched.notes)
        if remove_source:
            remove(fetched.path)
        return result

    def _import(self, path: Path, source: str, notes: AuthorNotes) -> ImportResult:
        opened = self.importer.open(path)
        self._show(opened)

        from lpw_sdxl.importing.entry import import_entry

        return import_entry(self.importer, opened, source, notes, self.console.progress)

    def _find(self, sha256: str | None) -> ImportResult | None:
        """Find the entry of a file that need not be downloaded."""
        from lpw_sdxl.importing.entry import SHA256, find_known

        self.importer.check_name(None)
        return None if sha256 is None else find_known(self.importer, {SHA256: sha256})

    def _leave_if_known(self, sha256: str | None) -> None:
        """Leave the download when the store has the file that would come."""
        known = self._find(sha256)
        if known is not None:
            raise _KnownEntry(known)

    def _check_header(self, path: Path, full_size: int) -> None:
        """Judge a download by its first bytes."""
        opened = self.importer.open(path, full_size)
        self._show(opened)
        self._check_space(full_size - path.stat().st_size, self.importer.store_bytes(opened))

    def _check_space(self, missing_bytes: int | None, weight_bytes: int | None = None) -> None:
        """Check the room for what is known to come; only the header has the size of the model."""
        if missing_bytes is None:
            return
        from lpw_sdxl.importing.entry import store_need
        from lpw_sdxl.store.space import Need, check_space

        entry = store_need(missing_bytes if weight_bytes is None else weight_bytes)
        check_space(
            [Need("the download", self.downloads, missing_bytes, "LPW_SDXL_DOWNLOADS"), entry]
        )

    def _show(self, opened: Opened) -> None:
        """Show what a file is; once it is whole, only what its first bytes did not have."""
        rows = [row for row in self.importer.rows(opened) if row not in self._shown]
        self._shown += rows
        if rows:
            self.console.show(rows)


def not_a_download(source: LocalSource) -> CheckpointError:
    """Return the error for a file of the user's that was to be removed after its import."""
    return CheckpointError(
        f"--remove-source is for downloads; {source.path.name} is a file of yours and "
        "stays: leave it out."
    )


class _KnownEntry(Exception):  # noqa: N818 - not an error
    """The way out of a download whose file the store has already; not a failure."""

    def __init__(self, result: ImportResult) -> None:
        super().__init__(result.tag)
        self.result = result
