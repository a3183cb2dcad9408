"""Where an entry's file comes from, and its author's notes; pure."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class AuthorNotes:
    """The notes of a file's author; what they leave out is empty.

    Attributes:
        title: its name in the author's words.
        base_model: the family that it belongs to or was made for, such as `Illustrious`.
        trained_words: words that it was trained to react to.
    """

    title: str = ""
    base_model: str = ""
    trained_words: tuple[str, ...] = ()

    def or_else(self, other: AuthorNotes) -> AuthorNotes:
        """Return these notes, completed from others where they are empty."""
        return AuthorNotes(
            self.title or other.title,
            self.base_model or other.base_model,
            self.trained_words or other.trained_words,
        )


@dataclass(frozen=True)
class Origin:
    """The file that an entry of the store was made from.

    Attributes:
        source: where it came from, such as `civitai:128078`; no query, no key.
        file: its name, without its folder.
        size: bytes.
        sha256: lower-case hexadecimal digits.
        notes: its author's.
    """

    source: str
    file: str
    size: int
    sha256: str
    notes: AuthorNotes = field(default_factory=AuthorNotes)

    @property
    def autov2(self) -> str:
        """Return the short hash by which Civitai and A1111 name a file."""
        return self.sha256[:10].upper()


_OF_FILE = {
    "source": "source",
    "source_file": "file",
    "source_size": "size",
    "source_sha256": "sha256",
}
"""Origin's fields by their names in a manifest, where they lie beside the entry's own."""
_OF_NOTES = ("title", "base_model", "trained_words")


def flatten_origin(origin: Origin) -> dict[str, object]:
    """Return an origin as manifests keep it, on one level."""
    of_file = {name: getattr(origin, attribute) for name, attribute in _OF_FILE.items()}
    return of_file | asdict(origin.notes)


def lift_origin(values: MutableMapping[str, object]) -> dict[str, object]:
    """Take an origin out of a manifest's values, as plain values of Origin's own fields.

    Raises:
        KeyError: one of them is missing.
    """
    lifted = {attribute: values.pop(name) for name, attribute in _OF_FILE.items()}
    return lifted | {"notes": {name: values.pop(name) for name in _OF_NOTES}}
