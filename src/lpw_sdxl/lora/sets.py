"""Which LoRAs a network has, and how strong: what images are told apart by. Pure, no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from lpw_sdxl.lora.request import LoraUse
from lpw_sdxl.weights.component import Component

LoraSet = tuple[tuple[str, float], ...]
"""LoRAs by their source's SHA-256, each with its strength; sorted, none twice and none of 0."""
NO_LORAS: LoraSet = ()


class LoraSets(NamedTuple):
    """The sets of one image; a LoRA is in one only if it changes something there.

    Attributes:
        unet: for the UNet.
        text_encoders: for both text encoders.
    """

    unet: LoraSet
    text_encoders: LoraSet


NO_LORA_SETS = LoraSets(NO_LORAS, NO_LORAS)
"""The sets of an image without LoRAs."""


def sets_of(
    uses: Sequence[LoraUse], changed_networks: Callable[[str], Collection[Component]]
) -> LoraSets:
    """Say which LoRAs each network has for an image.

    Args:
        uses: the image's LoRAs.
        changed_networks: says which networks the LoRA of a name changes.
    """
    unet, text_encoders = [], []
    for use in uses:
        changed = changed_networks(use.name)
        if Component.UNET in changed and use.strength.unet:
            unet.append((use.sha256, use.strength.unet))
        if set(changed) - {Component.UNET} and use.strength.text_encoder:
            text_encoders.append((use.sha256, use.strength.text_encoder))
    return LoraSets(tuple(sorted(unet)), tuple(sorted(text_encoders)))
