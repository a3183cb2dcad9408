"""What a LoRA's writer noted in its metadata: hearsay for people, cleaned and kept short.

The keys are those of sd-scripts (`ss_`) and of the ModelSpec standard 1.0.1 (`modelspec.`).
"""

from __future__ import annotations

import math

from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.text import clean_text

_LONGEST = 200
_MOST_WORDS = 50


def architecture(header: CheckpointHeader) -> str:
    """Return the kind of model that it was trained on in the writer's words, or nothing."""
    return _first(header, "modelspec.architecture", "ss_base_model_version")


def base_model(header: CheckpointHeader) -> str:
    """Return kind and file of the model that it was trained on, as far as they are told."""
    kind, file = architecture(header), _first(header, "ss_sd_model_name")
    return f"{kind} ({file})" if kind and file else kind or file


def title(header: CheckpointHeader) -> str:
    """Return what the writer calls it, or nothing."""
    return _first(header, "modelspec.title", "ss_output_name")


def trained_words(header: CheckpointHeader) -> tuple[str, ...]:
    """Return what to write in a prompt, where the writer says it.

    `ss_tag_frequency` is not read: a frequent tag (`1girl`) is mostly one that the model knew.
    """
    text = header.metadata.get("modelspec.trigger_phrase", "")
    words = (clean_text(word)[:_LONGEST] for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))[:_MOST_WORDS]


def alphas(header: CheckpointHeader) -> tuple[float, ...]:
    """Return sd-scripts' note of alpha, if it is a number."""
    try:
        alpha = float(header.metadata.get("ss_network_alpha", ""))
    except ValueError:
        return ()
    return (alpha,) if math.isfinite(alpha) else ()


def _first(header: CheckpointHeader, *keys: str) -> str:
    texts = (clean_text(header.metadata.get(key, ""))[:_LONGEST].strip('" ') for key in keys)
    return next((text for text in texts if text and text != "None"), "")
