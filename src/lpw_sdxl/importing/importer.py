"""What is imported, and how: the options that all kinds share, and the face of a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from lpw_sdxl.importing.console import Row
from lpw_sdxl.store.manifest import AnyManifest
from lpw_sdxl.store.origin import AuthorNotes, Origin
from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.progress import Progress


@dataclass(frozen=True)
class ImportOptions:
    """How a file of any kind is imported.

    Attributes:
        name: of the entry, as its kind counts names; None for the kind's own choice.
        sha256: what the file's SHA-256 must be, or None.
        force: whether an entry of the same tag is replaced.
    """

    name: str | None = None
    sha256: str | None = None
    force: bool = False


@dataclass(frozen=True)
class ImportResult:
    """The entry's tag, and whether it was there before."""

    tag: str
    was_known: bool


class OpenedFile(Protocol):
    """A file whose header was read and judged to be of the kind that is imported."""

    @property
    def header(self) -> CheckpointHeader:
        """Return the file's header."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return the files that the entry is of, in the order in which their SHA-256 is joined."""

    @property
    def stamps(self) -> Mapping[Path, str]:
        """Return `file_stamp` of every file that is read, as it was before; the main one too."""

    @property
    def notes(self) -> AuthorNotes:
        """Return what the header has of its author's notes."""


Opened = TypeVar("Opened", bound=OpenedFile)


@dataclass(frozen=True)
class EntryDraft(Generic[AnyManifest]):
    """An entry that is planned, and not yet written.

    Attributes:
        weight_bytes: what its tensors take in the store.
        describe: makes its manifest from the finished origin, without the list of files.
        fill: writes its files into a directory and returns the whole manifest.
    """

    weight_bytes: int
    describe: Callable[[Origin], AnyManifest]
    fill: Callable[[Path, AnyManifest, Progress], AnyManifest]


class Importer(Protocol[Opened, AnyManifest]):
    """A kind of file that is imported, with the user's options."""

    @property
    def options(self) -> ImportOptions:
        """Return the options that all kinds share."""

    def open(self, path: Path, full_size: int | None = None) -> Opened:
        """Read and judge a file's header; `full_size` as in `header.read_header`."""

    def rows(self, opened: Opened) -> Sequence[Row]:
        """List what a file is, one fact a row."""

    def store_bytes(self, opened: Opened) -> int:
        """Estimate what its tensors will take in the store, before anything heavy is imported."""

    def check_name(self, opened: Opened | None) -> None:
        """Refuse a name that can't be used or is taken; without a file, one that is asked for."""

    def find(self, metadata: Mapping[str, str], opened: Opened | None) -> AnyManifest | None:
        """Find the whole entry with these metadata in the store.

        Args:
            metadata: values that the store must have of it.
            opened: the file, if its header is known already.

        Raises:
            LpwSdxlError: it is there, and was made with other options.
        """

    def draft(self, opened: Opened) -> EntryDraft[AnyManifest]:
        """Plan the entry, without reading the file's tensors."""
