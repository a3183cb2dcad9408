"""The LoRAs and embeddings that fit a model, of those that are imported; no torch, no BentoML."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.embedding.preflight import embedding_fit
from lpw_sdxl.errors import CheckpointError, ModelError
from lpw_sdxl.lora.targets import encoder_widths, read_targets, signature


def find_installed(model_directory: Path, directories: Iterable[Path]) -> Registry:
    """Read the add-ons in some directories, and keep those that fit a model.

    Args:
        model_directory: of the model that is served.
        directories: each one entry's.

    Raises:
        ModelError: the model's own files are damaged.
    """
    try:
        targets = read_targets(model_directory)
    except CheckpointError as error:
        raise ModelError(f"The model to serve is damaged: {error}") from error
    return Registry.read(
        directories,
        signature=signature(targets),
        embedding_fit=embedding_fit(*encoder_widths(targets)),
    )
