"""Which LoRAs a network has, and how strong: what images are told apart by. Pure, no torch."""

from __future__ import annotations

from typing import NamedTuple

LoraSet = tuple[tuple[str, float], ...]
"""LoRAs by their source's SHA-256, each with its strength; sorted, none twice and none of 0."""
NO_LORAS: LoraSet = ()


class LoraSets(NamedTuple):
    """The sets of one image; a LoRA is in one only if it changes something there.

    Attributes:
        unet: for the UNet.
        text_encoders: for both text encoders.
    """

    unet: LoraSet = NO_LORAS
    text_encoders: LoraSet = NO_LORAS
