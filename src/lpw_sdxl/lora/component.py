"""The parts of a model that a LoRA may change, by their folders in a model directory."""

from __future__ import annotations

from enum import StrEnum


class Component(StrEnum):
    """A part of the model."""

    UNET = "unet"
    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
