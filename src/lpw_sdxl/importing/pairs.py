"""The import of an embedding from two files, one for each text encoder.

Both files are had first, because one alone can't be judged; then the import is that of any file.
"""

# ruff: noqa: PLC0415 - what is heavy is imported by the steps that need it

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lpw_sdxl.download.source import LocalSource, Source, SourceKind, parse_source
from lpw_sdxl.embedding.preflight import examine_half
from lpw_sdxl.importing.acquire import not_a_download
from lpw_sdxl.importing.addons import AddonImporter
from lpw_sdxl.importing.console import ImportConsole
from lpw_sdxl.importing.importer import ImportResult
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.header import read_header


@dataclass(frozen=True)
class _Half:
    """One of the files: where it is, what may be stored of where it came from, and its notes."""

    path: Path
    public: str
    notes: AuthorNotes
    is_download: bool


@dataclass(frozen=True)
class PairAcquisition:
    """One import from two sources.

    Attributes:
        importer: of an embedding; its SHA-256 is the joined one of both files.
        kinds: of sources, as `read_kinds` returns them.
        downloads: the folder of downloads.
        console: where it is shown.
    """

    importer: AddonImporter
    kinds: tuple[SourceKind, ...]
    downloads: Path
    console: ImportConsole

    def import_sources(self, texts: Sequence[str], *, remove_source: bool = False) -> ImportResult:
        """Import the pair that the user named, in any order.

        Args:
            texts: two times a path, or what one of the kinds of sources takes.
            remove_source: whether downloads are removed after the import.

        Raises:
            AddonError: they are no pair, or can't be imported; the store is as it was.
            CheckpointError: one can't be had, or is damaged.
        """
        from lpw_sdxl.importing.entry import SHA256, find_known, import_entry

        sources = [parse_source(text, self.kinds) for text in texts]
        for source in sources:
            if remove_source and isinstance(source, LocalSource):
                raise not_a_download(source)
        sha256 = self.importer.options.sha256
        known = None if sha256 is None else find_known(self.importer, {SHA256: sha256})
        if known is not None:
            return known
        first, second = (self._take(source) for source in sources)
        importer = replace(self.importer, second=second.path)
        opened = importer.open(first.path)
        self.console.show(importer.rows(opened))
        halves = sorted((first, second), key=lambda half: opened.sources.index(half.path))
        public = " + ".join(half.public for half in halves)
        notes = halves[0].notes.or_else(halves[1].notes)
        result = import_entry(importer, opened, public, notes, self.console.progress)
        if remove_source:
            self._remove([half.path for half in halves if half.is_download])
        return result

    def _take(self, source: LocalSource | Source) -> _Half:
        """Return a file of this machine, or download it."""
        if isinstance(source, LocalSource):
            return _Half(source.path, source.public, AuthorNotes(), is_download=False)
        from lpw_sdxl.download.fetch import fetch
        from lpw_sdxl.download.hooks import DownloadHooks

        hooks = DownloadHooks(
            progress=self.console.progress,
            check_header=_check_half,
            check_space=self._check_space,
            note=self.console.print_line,
        )
        keys = [kind.key for kind in self.kinds if kind.key is not None]
        fetched = fetch(source, self.downloads, keys=keys, hooks=hooks)
        if fetched.was_there:
            self.console.print_line(f"downloaded earlier: {fetched.path}")
        return _Half(fetched.path, fetched.source, fetched.notes, is_download=True)

    def _check_space(self, missing_bytes: int | None) -> None:
        from lpw_sdxl.importing.entry import store_need
        from lpw_sdxl.store.space import Need, check_space

        if missing_bytes is not None:
            download = Need("the download", self.downloads, missing_bytes, "LPW_SDXL_DOWNLOADS")
            check_space([download, store_need(missing_bytes)])

    @staticmethod
    def _remove(paths: Sequence[Path]) -> None:
        from lpw_sdxl.download.fetch import remove

        for path in paths:
            remove(path)


def _check_half(path: Path, full_size: int) -> None:
    """Judge a download by its first bytes."""
    examine_half(read_header(path, full_size))
