"""A file of the web as its source describes it, before it is fetched."""

from __future__ import annotations

from dataclasses import dataclass, field

from lpw_sdxl.store.origin import AuthorNotes

MAX_FILE_BYTES = 100 * 10**9
"""Of any file that is fetched."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its source states it; what is not stated is None or empty.

    Attributes:
        url: of the file, with its query.
        file_name: a safe name that ends in `.safetensors`; None for the one its server gives it.
        size: bytes, to within 1,024.
        sha256: lower-case hexadecimal digits.
        notes: its author's.
    """

    url: str = field(repr=False)
    file_name: str | None = None
    size: int | None = None
    sha256: str | None = None
    notes: AuthorNotes = field(default_factory=AuthorNotes)

    def is_same_as(self, other: RemoteFile) -> bool:
        """Return whether two descriptions state the same file, wherever it is fetched from."""
        mine, others = ((one.file_name, one.size, one.sha256) for one in (self, other))
        return mine == others
