"""The import of a checkpoint, as `acquire.py` drives it."""

# ruff: noqa: PLC0415 - what is heavy is imported by the steps that need it

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.checkpoint.console import Row, summary_rows
from lpw_sdxl.checkpoint.options import ImportOptions, ImportResult
from lpw_sdxl.checkpoint.selection import Checkpoint, Selection, open_checkpoint
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.progress import Progress


@dataclass(frozen=True)
class CheckpointTask:
    """A checkpoint is imported.

    Attributes:
        options: how.
        selection: which tensors serve.
    """

    options: ImportOptions
    selection: Selection

    @property
    def sha256(self) -> str | None:
        """What the file's SHA-256 must be."""
        return self.options.sha256

    def open(self, path: Path, full_size: int | None = None) -> Checkpoint:
        """Read and judge a file's header."""
        return open_checkpoint(path, self.selection, full_size)

    def rows(self, opened: Checkpoint) -> list[Row]:
        """Say what a file is."""
        return summary_rows(opened.header.name, opened.header.file_size, opened.summary)

    def store_bytes(self, opened: Checkpoint) -> int:
        """Return the size of the weights that will be in the store."""
        return opened.summary.parameter_count * self.options.dtype.size

    def find(self, sha256: str | None) -> ImportResult | None:
        """Find an import of the checkpoint with this SHA-256."""
        from lpw_sdxl.checkpoint.importer import find_imported

        return find_imported(sha256, self.options, self.selection)

    def run(self, opened: Checkpoint, origin: Origin, progress: Progress) -> ImportResult:
        """Import a checkpoint."""
        from lpw_sdxl.checkpoint.importer import import_checkpoint

        return import_checkpoint(opened, self.options, origin, progress)
