"""A LoRA's description in its file's metadata: unverified, for people, cleaned and shortened.

The keys are those of sd-scripts (`ss_`) and of the ModelSpec standard 1.0.1 (`modelspec.`).
"""

from __future__ import annotations

import math

from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.text import clean_text

_MAX_CHARACTERS = 200
_MAX_WORDS = 50
_MAX_READ = 10_000  # characters of a note, which may be as long as the header


def architecture(header: CheckpointHeader) -> str:
    """Return the kind of its base model as the metadata names it; empty if it does not."""
    return _first(header, "modelspec.architecture", "ss_base_model_version")


def author_notes(header: CheckpointHeader) -> AuthorNotes:
    """Return title, base model and trained words, as far as the metadata has them."""
    kind, file = architecture(header), _first(header, "ss_sd_model_name")
    return AuthorNotes(
        title=_first(header, "modelspec.title", "ss_output_name"),
        base_model=f"{kind} ({file})" if kind and file else kind or file,
        trained_words=_trained_words(header),
    )


def alphas(header: CheckpointHeader) -> tuple[float, ...]:
    """Return the alpha that sd-scripts noted, if it is a number."""
    try:
        alpha = float(header.metadata.get("ss_network_alpha", ""))
    except ValueError:
        return ()
    return (alpha,) if math.isfinite(alpha) else ()


def _trained_words(header: CheckpointHeader) -> tuple[str, ...]:
    """Return the trigger words for a prompt, if the metadata lists them.

    `ss_tag_frequency` is not read: its most frequent tags (`1girl`) are mostly ordinary words.
    """
    text = header.metadata.get("modelspec.trigger_phrase", "")[:_MAX_READ]
    words = (clean_text(word)[:_MAX_CHARACTERS] for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))[:_MAX_WORDS]


def _first(header: CheckpointHeader, *keys: str) -> str:
    notes = (header.metadata.get(key, "")[:_MAX_READ] for key in keys)
    texts = (clean_text(note)[:_MAX_CHARACTERS].strip('" ') for note in notes)
    return next((text for text in texts if text and text != "None"), "")
