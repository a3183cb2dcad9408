"""The files that an import needs: those of this machine as they are, others downloaded first."""

# ruff: noqa: PLC0415 - what knows the store, and the HTTP client, are imported when they are needed

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lpw_sdxl.download.hooks import DownloadHooks
from lpw_sdxl.download.source import LocalSource, Source, SourceKind, parse_source
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.importing.console import ImportConsole
from lpw_sdxl.store.origin import AuthorNotes


@dataclass(frozen=True)
class TakenFile:
    """A file that is on this machine now.

    Attributes:
        path: where it is.
        public: what may be stored and printed of where it came from.
        notes: its author's, as the source has them.
        is_download: whether it was downloaded, now or earlier.
    """

    path: Path
    public: str
    notes: AuthorNotes
    is_download: bool

    def remove(self) -> None:
        """Remove a download; a file of the user's stays."""
        if self.is_download:
            from lpw_sdxl.download.fetch import remove

            remove(self.path)


@dataclass(frozen=True)
class FileTaker:
    """The way from what a user names to a file of this machine.

    Attributes:
        kinds: of sources, as `read_kinds` returns them.
        downloads: the folder of downloads.
        console: where downloads are shown.
    """

    kinds: tuple[SourceKind, ...]
    downloads: Path
    console: ImportConsole

    def parse(self, text: str, *, remove_source: bool) -> LocalSource | Source:
        """Read what the user named as the source of a file.

        Raises:
            CheckpointError: it is no source, or is a file of the user's that is to be removed.
        """
        source = parse_source(text, self.kinds)
        if remove_source and isinstance(source, LocalSource):
            raise CheckpointError(
                f"--remove-source is for downloads; {source.path.name} is a file of yours and "
                "stays: leave it out."
            )
        return source

    def take(
        self,
        source: LocalSource | Source,
        check_header: Callable[[Path, int], None],
        *,
        check_sha256: Callable[[str | None], None] = lambda _: None,
        expected_sha256: str | None = None,
    ) -> TakenFile:
        """Return a file of this machine, or download it.

        Args:
            source: of the file.
            check_header: as in DownloadHooks.
            check_sha256: likewise.
            expected_sha256: what a download's SHA-256 must be, or None.

        Raises:
            CheckpointError: it can't be had, is not the expected one, or there is no room for it.
        """
        if isinstance(source, LocalSource):
            return TakenFile(source.path, source.public, AuthorNotes(), is_download=False)
        from lpw_sdxl.download.fetch import fetch

        fetched = fetch(
            source,
            self.downloads,
            keys=[kind.key for kind in self.kinds if kind.key is not None],
            expected_sha256=expected_sha256,
            hooks=DownloadHooks(
                progress=self.console.progress,
                check_sha256=check_sha256,
                check_header=check_header,
                check_space=self.check_space,
                note=self.console.print_line,
            ),
        )
        if fetched.was_there:
            self.console.print_line(f"downloaded earlier: {fetched.path}")
        return TakenFile(fetched.path, fetched.source, fetched.notes, is_download=True)

    def check_space(self, missing_bytes: int | None, weight_bytes: int | None = None) -> None:
        """Check the room for what is known to come; only the header has the size of the entry.

        Before the header is known, what is needed is shown first.

        Args:
            missing_bytes: still to be downloaded, or None if that is not known.
            weight_bytes: of the entry's tensors; None for about as many.

        Raises:
            CheckpointError: there is too little.
        """
        if missing_bytes is None:
            return
        from lpw_sdxl.importing.entry import needs_row, store_need
        from lpw_sdxl.store.space import Need, check_space

        download = Need("the download", self.downloads, missing_bytes, "LPW_SDXL_DOWNLOADS")
        if weight_bytes is None:
            needs = [download, store_need(missing_bytes, is_estimate=True)]
            self.console.show([needs_row(needs)])
        else:
            needs = [download, store_need(weight_bytes)]
        check_space(needs)
