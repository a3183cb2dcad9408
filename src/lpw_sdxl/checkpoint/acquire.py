"""From SOURCE on the command line to an entry of the store.

The header of a local file is judged before anything heavy is imported, and that of a download as
soon as its first bytes are there.
"""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from lpw_sdxl.checkpoint.console import ImportConsole, Row
from lpw_sdxl.checkpoint.options import ImportResult
from lpw_sdxl.download.source import CivitaiSource, LocalSource, UrlSource, parse_source
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.settings import ImportSettings
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.progress import Progress

Opened = TypeVar("Opened")
"""A file whose header was judged, and found to be what is imported."""


class Task(Protocol[Opened]):
    """What is imported, and how: a checkpoint, a LoRA, an embedding."""

    @property
    def sha256(self) -> str | None:
        """What the file's SHA-256 must be."""

    def open(self, path: Path, full_size: int | None = None) -> Opened:
        """Read and judge a file's header; `full_size` as in `header.read_header`."""

    def rows(self, opened: Opened) -> Sequence[Row]:
        """Say what a file is, one fact a row."""

    def store_bytes(self, opened: Opened) -> int:
        """Return the size of the tensors that will be in the store."""

    def find(self, sha256: str | None) -> ImportResult | None:
        """Find the import of a file that need not be downloaded."""

    def run(self, opened: Opened, origin: Origin, progress: Progress) -> ImportResult:
        """Import a file; `origin` is what is known of it without its header."""


@dataclass
class Acquisition(Generic[Opened]):
    """One import from a source.

    Attributes:
        task: what is imported.
        settings: where downloads go, and the key.
        console: where it is shown.
    """

    task: Task[Opened]
    settings: ImportSettings
    console: ImportConsole
    _is_shown: bool = field(default=False, init=False)

    def import_source(self, text: str, *, remove_source: bool = False) -> ImportResult:
        """Import what the user named.

        Args:
            text: a path, an https URL or `civitai:VERSION_ID`.
            remove_source: whether a download is removed after its import.

        Raises:
            UnsupportedCheckpointError: the file is of a kind that is not served.
            CheckpointError: it can't be had or imported; the store is as it was.
            AddonError: likewise, of a LoRA or an embedding.
        """
        source = parse_source(text, self.settings.civitai_url)
        if isinstance(source, LocalSource):
            if remove_source:
                raise CheckpointError(
                    f"--remove-source is for downloads; {source.path.name} is a file of yours and "
                    "stays: leave it out."
                )
            return self._import(source.path, Origin(source.public))
        return self._import_download(source, remove_source=remove_source)

    def _import_download(
        self, source: UrlSource | CivitaiSource, *, remove_source: bool
    ) -> ImportResult:
        from lpw_sdxl import download

        known = self.task.find(self.task.sha256)
        if known is not None:
            return known
        hooks = download.DownloadHooks(
            progress=self.console.progress,
            check_version=self._check_version,
            check_header=self._check_header,
            check_space=self._check_space,
            note=self.console.say,
        )
        try:
            fetched = download.fetch(
                source, self.settings, expected_sha256=self.task.sha256, hooks=hooks
            )
        except _KnownError as error:
            return error.result
        if fetched.was_there:
            self.console.say(f"downloaded earlier: {fetched.path}")
        result = self._import(fetched.path, fetched.origin)
        if remove_source:
            download.remove(fetched.path)
        return result

    def _import(self, path: Path, origin: Origin) -> ImportResult:
        opened = self.task.open(path)
        self._show(opened)
        return self.task.run(opened, origin, self.console.progress)

    def _check_version(self, sha256: str | None) -> None:
        """Leave the download when the store has the file that Civitai would send."""
        known = self.task.find(sha256)
        if known is not None:
            raise _KnownError(known)

    def _check_header(self, path: Path, full_size: int) -> None:
        """Judge a download by its first bytes."""
        opened = self.task.open(path, full_size)
        self._show(opened)
        self._check_space(full_size - path.stat().st_size, self.task.store_bytes(opened))

    def _check_space(self, missing_bytes: int | None, weight_bytes: int | None = None) -> None:
        """Check the room for what is known to come; only the header tells the size of the model."""
        if missing_bytes is None:
            return
        from lpw_sdxl.checkpoint.importer import model_need
        from lpw_sdxl.store.space import Need, check_space

        folder, setting = self.settings.downloads, "LPW_SDXL_DOWNLOADS"
        model = model_need(missing_bytes if weight_bytes is None else weight_bytes)
        check_space([Need("the download", folder, missing_bytes, setting), model])

    def _show(self, opened: Opened) -> None:
        if self._is_shown:
            return
        self._is_shown = True
        self.console.show(self.task.rows(opened))


class _KnownError(Exception):
    """The store has what would be downloaded; a way out of the download, not a failure."""

    def __init__(self, result: ImportResult) -> None:
        super().__init__(result.tag)
        self.result = result
