"""From SOURCE on the command line to an entry of the store, for every kind of file.

The header of a local file is judged before anything heavy is imported, and that of a download as
soon as its first bytes are there.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from lpw_sdxl.download.source import LocalSource
from lpw_sdxl.importing.console import Row
from lpw_sdxl.importing.importer import Importer, ImportResult, Opened
from lpw_sdxl.importing.taking import FileTaker
from lpw_sdxl.store.manifest import AnyManifest


@dataclass
class Acquisition(Generic[Opened, AnyManifest]):
    """One import from a source.

    Attributes:
        importer: of the file's kind.
        taker: of the file.
    """

    importer: Importer[Opened, AnyManifest]
    taker: FileTaker
    _shown: list[Row] = field(default_factory=list, init=False)

    def import_source(self, text: str, *, remove_source: bool = False) -> ImportResult:
        """Import what the user named.

        Args:
            text: a path, or what one of the kinds of sources takes.
            remove_source: whether a download is removed after its import.

        Raises:
            UnsupportedCheckpointError: the file is of a kind that is not served.
            CheckpointError: it can't be had or imported; the store is as it was.
            AddonError: likewise, of an add-on.
        """
        source = self.taker.parse(text, remove_source=remove_source)
        sha256 = self.importer.options.sha256
        if not isinstance(source, LocalSource):
            known = self._find(sha256)
            if known is not None:
                return known
        try:
            taken = self.taker.take(
                source,
                self._check_header,
                check_sha256=self._leave_if_known,
                expected_sha256=sha256,
            )
        except _KnownEntry as known_entry:
            return known_entry.result
        opened = self.importer.open(taken.path)
        self._show(opened)

        from lpw_sdxl.importing.entry import import_entry

        progress = self.taker.console.progress
        result = import_entry(self.importer, opened, taken.public, taken.notes, progress)
        if remove_source:
            taken.remove()
        return result

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
        missing = full_size - path.stat().st_size
        self.taker.check_space(missing, self.importer.store_bytes(opened))

    def _show(self, opened: Opened) -> None:
        """Show what its import needs, and what a file is; later only what was not known before."""
        from lpw_sdxl.importing.entry import needs_row, store_need

        needs = [store_need(self.importer.store_bytes(opened))]
        rows = [needs_row(needs), *self.importer.rows(opened)]
        rows = [row for row in rows if row not in self._shown]
        self._shown += rows
        if rows:
            self.taker.console.show(rows)


class _KnownEntry(Exception):  # noqa: N818 - not an error
    """The way out of a download whose file the store has already; not a failure."""

    def __init__(self, result: ImportResult) -> None:
        super().__init__(result.tag)
        self.result = result
