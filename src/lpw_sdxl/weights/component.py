"""The networks of the pipeline, and where a model directory has them."""

from __future__ import annotations

from enum import StrEnum


class Component(StrEnum):
    """A network of the pipeline; the value is the name of its folder."""

    UNET = "unet"
    VAE = "vae"
    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"

    @property
    def weights_file(self) -> str:
        """Return the file of its weights, relative to the model directory."""
        is_encoder = self in (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2)
        name = "model" if is_encoder else "diffusion_pytorch_model"
        return f"{self.value}/{name}.safetensors"

    @property
    def config_file(self) -> str:
        """Return the file of its configuration, relative to the model directory."""
        return f"{self.value}/config.json"
