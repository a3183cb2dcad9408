"""What a LoRA's entry keeps of what its file says; pure."""

from __future__ import annotations

from collections.abc import Mapping

from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.lora.plan import LoraSummary
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.header import CheckpointHeader


def lora_details(summary: LoraSummary, ignored: Mapping[str, int]) -> AddonDetails:
    """Return what is in a LoRA's file; `ignored` counts the tensors of no use by their reason."""
    return AddonDetails(
        kinds=summary.kinds,
        naming=summary.naming,
        ranks=summary.ranks,
        alphas=summary.alphas,
        modules={component.value: count for component, count in summary.modules.items() if count},
        ignored=ignored,
    )


def lora_origin(header: CheckpointHeader, summary: LoraSummary) -> Origin:
    """Return what a LoRA's header says of it."""
    source = f"file:{header.name}"
    return Origin(source, summary.title, summary.base_model, summary.trained_words)
