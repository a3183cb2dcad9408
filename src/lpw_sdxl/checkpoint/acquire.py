"""From SOURCE on the command line to an entry of the store.

The header of a local file is judged before anything heavy is imported, and that of a download as
soon as its first bytes are there.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lpw_sdxl.checkpoint.console import Row, summary_rows
from lpw_sdxl.checkpoint.options import ImportOptions, ImportResult
from lpw_sdxl.checkpoint.provenance import Provenance, provenance_of
from lpw_sdxl.checkpoint.selection import Checkpoint, Selection, open_checkpoint
from lpw_sdxl.checkpoint.source import CivitaiSource, LocalSource, UrlSource, parse_source
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.settings import ImportSettings


class Audience(Protocol):
    """Who follows an import."""

    def show(self, rows: Sequence[Row]) -> None:
        """Show a table of names and values."""

    def say(self, line: str) -> None:
        """Show one line."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""


class Acquisition:
    """One import from a source.

    Attributes:
        options: how it is imported.
        selection: which tensors serve.
        settings: where downloads go, and the key.
        audience: who is told.
    """

    def __init__(
        self,
        options: ImportOptions,
        selection: Selection,
        settings: ImportSettings,
        audience: Audience,
    ) -> None:
        self.options = options
        self.selection = selection
        self.settings = settings
        self.audience = audience
        self._is_shown = False

    def import_source(self, text: str, *, remove_source: bool = False) -> ImportResult:
        """Import what the user named.

        Args:
            text: a path, an https URL or `civitai:VERSION_ID`.
            remove_source: whether a download is removed after its import.

        Raises:
            UnsupportedCheckpointError: the file is of a kind that is not served.
            CheckpointError: it can't be had or imported; the store is as it was.
        """
        source = parse_source(text, self.settings.civitai_url)
        if isinstance(source, LocalSource):
            if remove_source:
                raise CheckpointError(
                    f"--remove-source is for downloads; {source.path.name} is a file of yours and "
                    "stays: leave it out."
                )
            return self._import_file(source.path, source.public)
        return self._import_download(source, remove_source=remove_source)

    def _import_file(self, path: Path, source: str) -> ImportResult:
        checkpoint = open_checkpoint(path, self.selection)
        self._show(checkpoint)
        return self._import(checkpoint, provenance_of(source, checkpoint.header.metadata))

    def _import(self, checkpoint: Checkpoint, provenance: Provenance) -> ImportResult:
        from lpw_sdxl.checkpoint.importer import import_checkpoint

        return import_checkpoint(checkpoint, self.options, provenance, self.audience.progress)

    def _import_download(
        self, source: UrlSource | CivitaiSource, *, remove_source: bool
    ) -> ImportResult:
        from lpw_sdxl.checkpoint import download
        from lpw_sdxl.checkpoint.importer import find_imported

        known = find_imported(self.options.sha256, self.options, self.selection)
        if known is not None:
            return known
        hooks = download.DownloadHooks(
            progress=self.audience.progress,
            check_version=self._check_version,
            check_header=self._check_header,
            check_space=self._check_space,
            note=self.audience.say,
        )
        try:
            fetched = download.fetch(
                source, self.settings, expected_sha256=self.options.sha256, hooks=hooks
            )
        except _KnownError as error:
            return error.result
        if fetched.was_there:
            self.audience.say(f"downloaded earlier: {fetched.path}")
        checkpoint = open_checkpoint(fetched.path, self.selection)
        self._show(checkpoint)
        metadata = checkpoint.header.metadata
        provenance = provenance_of(fetched.source, metadata, fetched.civitai)
        result = self._import(checkpoint, provenance)
        if remove_source:
            download.remove(fetched.path)
        return result

    def _check_version(self, sha256: str | None) -> None:
        """Leave the download when the store has the file that Civitai would send."""
        from lpw_sdxl.checkpoint.importer import find_imported

        known = find_imported(sha256, self.options, self.selection)
        if known is not None:
            raise _KnownError(known)

    def _check_header(self, path: Path, full_size: int) -> None:
        """Judge a download by its first bytes."""
        checkpoint = open_checkpoint(path, self.selection, full_size)
        self._show(checkpoint)
        numbers = checkpoint.summary.parameter_count
        self._check_room(full_size - path.stat().st_size, numbers * self.options.dtype.size)

    def _check_space(self, missing_bytes: int | None) -> None:
        """Check the room for what is known to come; the header tells more."""
        if missing_bytes is not None:
            self._check_room(missing_bytes, missing_bytes)

    def _check_room(self, download_bytes: int, weight_bytes: int) -> None:
        from lpw_sdxl.checkpoint.importer import model_need
        from lpw_sdxl.checkpoint.space import Need, check_space

        folder, setting = self.settings.downloads, "LPW_SDXL_DOWNLOADS"
        needs = [Need("the download", folder, download_bytes, setting), model_need(weight_bytes)]
        check_space(needs)

    def _show(self, checkpoint: Checkpoint) -> None:
        if self._is_shown:
            return
        self._is_shown = True
        header = checkpoint.header
        self.audience.show(summary_rows(header.name, header.file_size, checkpoint.summary))


class _KnownError(Exception):
    """The store has what would be downloaded; a way out of the download, not a failure."""

    def __init__(self, result: ImportResult) -> None:
        super().__init__(result.tag)
        self.result = result
