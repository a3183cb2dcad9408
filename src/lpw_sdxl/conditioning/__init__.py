"""Parsed prompts to what the UNet is given; `chunking` imports without torch.

The names below are found when they are first asked for, so that importing `chunking` doesn't
import torch through this file.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lpw_sdxl.conditioning.assembly import Conditioning
    from lpw_sdxl.conditioning.clip import ClipTextEncoder
    from lpw_sdxl.conditioning.embeddings import Embedding, load_embedding
    from lpw_sdxl.conditioning.encoder import DEFAULT_CACHE_BYTES, EncoderCounters, PromptEncoder
    from lpw_sdxl.conditioning.explain import (
        EmbeddingMention,
        ExplainedPrompt,
        ExplainedWindow,
        PromptExplanation,
    )
    from lpw_sdxl.conditioning.pair import PromptPair
    from lpw_sdxl.conditioning.tokenizer import ClipTokenizer

__all__ = [
    "DEFAULT_CACHE_BYTES",
    "ClipTextEncoder",
    "ClipTokenizer",
    "Conditioning",
    "Embedding",
    "EmbeddingMention",
    "EncoderCounters",
    "ExplainedPrompt",
    "ExplainedWindow",
    "PromptEncoder",
    "PromptExplanation",
    "PromptPair",
    "load_embedding",
]

_HOMES = {
    "DEFAULT_CACHE_BYTES": "encoder",
    "ClipTextEncoder": "clip",
    "ClipTokenizer": "tokenizer",
    "Conditioning": "assembly",
    "Embedding": "embeddings",
    "EmbeddingMention": "explain",
    "EncoderCounters": "encoder",
    "ExplainedPrompt": "explain",
    "ExplainedWindow": "explain",
    "PromptEncoder": "encoder",
    "PromptExplanation": "explain",
    "PromptPair": "pair",
    "load_embedding": "embeddings",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
