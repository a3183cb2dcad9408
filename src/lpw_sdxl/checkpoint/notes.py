"""The author's notes in a file's header, by the names of ModelSpec 1.0.1; pure."""

from __future__ import annotations

from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.text import clean_text

_MAX_TEXT = 200
_MAX_READ = 10_000  # characters of a note, which may be as long as the header


def header_notes(header: CheckpointHeader) -> AuthorNotes:
    """Return title and trigger phrase of a checkpoint or an embedding, as its header has them."""
    title, trigger = (_note(header, f"modelspec.{key}") for key in ("title", "trigger_phrase"))
    return AuthorNotes(title, trained_words=(trigger,) if trigger else ())


def _note(header: CheckpointHeader, key: str) -> str:
    """Return a note of the header as one line; ComfyUI's may be in the quotes of a JSON text."""
    return clean_text(header.metadata.get(key, "")[:_MAX_READ]).strip('" ')[:_MAX_TEXT]
