"""The networks of the pipeline that a LoRA may change."""

from __future__ import annotations

from enum import StrEnum


class Component(StrEnum):
    """A network; the value is the name of its folder in a model directory."""

    UNET = "unet"
    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
