"""Text encoders from a model directory in Diffusers' layout; it knows nothing of prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lpw_sdxl.conditioning.clip import ClipTextEncoder
from lpw_sdxl.conditioning.tokenizer import ClipTokenizer
from lpw_sdxl.errors import ModelError
from lpw_sdxl.weights.network import load_network

_WEIGHTS_FILE = "model.safetensors"


class _EncoderLayout(NamedTuple):
    tokenizer: str
    text_encoder: str
    model_class: type[CLIPTextModel] | type[CLIPTextModelWithProjection]
    rename: Callable[[str], str] = str


def _without_prefix(name: str) -> str:
    """Return Transformers' name of a weight, which was a longer one before 5.6."""
    return name.removeprefix("text_model.")


# In the order of their features in SDXL's UNet; the last one yields the pooled vector.
_SDXL_ENCODERS = (
    _EncoderLayout("tokenizer", "text_encoder", CLIPTextModel, _without_prefix),
    _EncoderLayout("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection),
)


def load_text_encoders(
    model_directory: Path, device: str | torch.device, dtype: torch.dtype
) -> tuple[ClipTextEncoder, ...]:
    """Load SDXL's two text encoders, without any download.

    Raises:
        ModelError: a part is missing, unreadable, or lacks a tensor.
    """
    return tuple(_load(model_directory, layout, device, dtype) for layout in _SDXL_ENCODERS)


def _load(
    root: Path, layout: _EncoderLayout, device: str | torch.device, dtype: torch.dtype
) -> ClipTextEncoder:
    _check_files(root / layout.tokenizer)
    tokenizer = _reading(
        layout.tokenizer, lambda: ClipTokenizer.from_directory(root / layout.tokenizer)
    )
    model = _reading(layout.text_encoder, lambda: _load_model(root, layout, dtype)).to(device)
    if tokenizer.size > model.config.vocab_size:
        raise _damaged(layout.tokenizer, "has more tokens than its text encoder")
    return ClipTextEncoder(tokenizer, model)


def _load_model(root: Path, layout: _EncoderLayout, dtype: torch.dtype) -> Any:
    config = CLIPTextConfig.from_pretrained(root / layout.text_encoder, local_files_only=True)
    model = load_network(
        lambda: layout.model_class(config),
        root / layout.text_encoder / _WEIGHTS_FILE,
        dtype,
        layout.rename,
    )
    # A buffer that no file has.
    positions = torch.arange(config.max_position_embeddings).expand((1, -1))
    getattr(model, "text_model", model).embeddings.position_ids = positions
    return model


def _check_files(directory: Path) -> None:
    # Where there is no vocabulary, Transformers makes an empty one.
    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise _damaged(directory.name, "holds no vocabulary")


def _reading(part: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ModelError:
        raise
    except Exception as cause:  # tokenizers raises Exception itself
        raise _damaged(part, "can't be read") from cause


def _damaged(part: str, fault: str) -> ModelError:
    return ModelError(f"{part}/ of the model directory {fault}; import the checkpoint again")
