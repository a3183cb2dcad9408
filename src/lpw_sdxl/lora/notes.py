"""What a LoRA's writer noted in its metadata: hearsay for people, cleaned and kept short.

The keys are those of sd-scripts (`ss_`) and of the ModelSpec standard 1.0.1 (`modelspec.`).
"""

from __future__ import annotations

import math

from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.text import clean_text

_LONGEST = 200
_MOST_WORDS = 50


def architecture(header: CheckpointHeader) -> str:
    """Return the kind of model that it was trained on in the writer's words, or nothing."""
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
    """Return sd-scripts' note of alpha, if it is a number."""
    try:
        alpha = float(header.metadata.get("ss_network_alpha", ""))
    except ValueError:
        return ()
    return (alpha,) if math.isfinite(alpha) else ()


def _trained_words(header: CheckpointHeader) -> tuple[str, ...]:
    """Return what to write in a prompt, where the writer says it.

    `ss_tag_frequency` is not read: a frequent tag (`1girl`) is mostly one that the model knew.
    """
    text = header.metadata.get("modelspec.trigger_phrase", "")
    words = (clean_text(word)[:_LONGEST] for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))[:_MOST_WORDS]


def _first(header: CheckpointHeader, *keys: str) -> str:
    texts = (clean_text(header.metadata.get(key, ""))[:_LONGEST].strip('" ') for key in keys)
    return next((text for text in texts if text and text != "None"), "")
