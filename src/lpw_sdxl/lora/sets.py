"""The sets of LoRAs in each network, by which images are grouped. Pure, no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from lpw_sdxl.lora.request import LoraUse
from lpw_sdxl.weights.component import Component

LoraSet = tuple[tuple[str, float], ...]
"""Key (`LoraUse.key`) and strength of each LoRA; sorted, none twice, no strength of 0."""
NO_LORAS: LoraSet = ()


class LoraSets(NamedTuple):
    """The sets of one image; a set holds only LoRAs that change something in its networks.

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
    """Sort an image's LoRAs into the sets of each network.

    Args:
        uses: the image's LoRAs.
        changed_networks: returns the networks that the LoRA of a key changes.
    """
    unet, text_encoders = [], []
    for use in uses:
        changed = changed_networks(use.key)
        if Component.UNET in changed and use.strength.unet:
            unet.append((use.key, use.strength.unet))
        if set(changed) - {Component.UNET} and use.strength.text_encoder:
            text_encoders.append((use.key, use.strength.text_encoder))
    return LoraSets(tuple(sorted(unet)), tuple(sorted(text_encoders)))
