"""Where a checkpoint comes from and what its makers say of it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lpw_sdxl.download.civitai import CivitaiVersion
from lpw_sdxl.weights.text import clean_text

BASE_MODEL = "SDXL 1.0"
"""What every checkpoint that is served descends from, where nobody names a later family."""

_MAX_TEXT = 200


@dataclass(frozen=True)
class Provenance:
    """What is known of a checkpoint besides its bytes.

    Attributes:
        source: where it came from, without query or key, such as `civitai:128078`.
        title: what its makers call it, or empty.
        base_model: the family it belongs to, such as `Illustrious`.
        trained_words: words that it was trained to react to.
    """

    source: str
    title: str = ""
    base_model: str = BASE_MODEL
    trained_words: tuple[str, ...] = ()


def provenance_of(
    source: str, metadata: Mapping[str, str], version: CivitaiVersion | None = None
) -> Provenance:
    """Take what Civitai says; without it, what the file's header says (ModelSpec 1.0.1)."""
    if version is not None:
        return Provenance(
            source=source,
            title=f"{version.model_name} {version.version_name}".strip(),
            base_model=version.base_model or BASE_MODEL,
            trained_words=version.trained_words,
        )
    title, trigger = (_note(metadata, f"modelspec.{key}") for key in ("title", "trigger_phrase"))
    return Provenance(
        source=source,
        title=title,
        trained_words=(trigger,) if trigger else (),
    )


def _note(metadata: Mapping[str, str], key: str) -> str:
    """Return a note of the header as one line; ComfyUI's may be in the quotes of a JSON text."""
    return clean_text(metadata.get(key, "")).strip('" ')[:_MAX_TEXT]
