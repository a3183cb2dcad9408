"""The demo model's four networks: SDXL's structure at a tenth of its width or less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from demo.scene import PICTURE_PIXELS
from demo.words import Vocabulary, WordEmbedding
from lpw_sdxl.checkpoint.architecture import (
    CLIP_TOKENS,
    SIZE_EMBEDDING_WIDTH,
    SIZE_EMBEDDINGS,
    Architecture,
    TextEncoderSizes,
    UNetSizes,
    VaeSizes,
)
from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype

NATIVE_SIZE = ImageSize(PICTURE_PIXELS, PICTURE_PIXELS)
ENCODER_WIDTHS = (32, 64)
ENCODER_LAYERS = 3
ARCHITECTURE = Architecture(
    unet=UNetSizes(
        widths=(64, 64, 96),
        transformer_layers=(0, 1, 1),
        context_width=sum(ENCODER_WIDTHS),
        added_width=ENCODER_WIDTHS[1] + SIZE_EMBEDDINGS * SIZE_EMBEDDING_WIDTH,
    ),
    encoders=tuple(
        TextEncoderSizes(width, ENCODER_LAYERS, 4 * width, width, *CLIP_TOKENS)
        for width in ENCODER_WIDTHS
    ),  # type: ignore[arg-type]
    vae=VaeSizes((8, 16, 32, 32), latent_channels=4),
)


@dataclass(frozen=True)
class Networks:
    """The networks under training, float32.

    Attributes:
        unet, vae: Diffusers' modules.
        encoders: Transformers' text models in SDXL's order, with token embeddings of a few words.
    """

    unet: Any
    vae: Any
    encoders: tuple[Any, Any]

    @property
    def modules(self) -> dict[Component, Any]:
        """Return the networks by component."""
        return {
            Component.UNET: self.unet,
            Component.VAE: self.vae,
            Component.TEXT_ENCODER: self.encoders[0],
            Component.TEXT_ENCODER_2: self.encoders[1],
        }


def make_networks(vocabulary: Vocabulary, seed: int) -> Networks:
    """Make untrained networks."""
    torch.manual_seed(seed)
    configs = component_configs(ARCHITECTURE, NATIVE_SIZE, CheckpointDtype.FLOAT32)
    classes = (
        (Component.TEXT_ENCODER, CLIPTextModel),
        (Component.TEXT_ENCODER_2, CLIPTextModelWithProjection),
    )
    encoders = []
    for component, model_class in classes:
        # A table of all of CLIP's tokens would be most of the work of a training step.
        encoder = model_class(CLIPTextConfig(**(configs[component] | {"vocab_size": 3})))
        width = encoder.config.hidden_size
        encoder.set_input_embeddings(WordEmbedding(vocabulary, width))
        encoders.append(encoder)
    return Networks(
        unet=UNet2DConditionModel.from_config(configs[Component.UNET]),
        vae=AutoencoderKL.from_config(configs[Component.VAE]),
        encoders=(encoders[0], encoders[1]),
    )


def noise_schedule() -> torch.Tensor:
    """Compute the share of the signal's power left at each of 1000 timesteps; the last is nearly 0.

    SDXL's own betas, scaled to zero terminal SNR (arXiv 2305.08891, section 3.1), float32 `[1000]`.
    """
    with torch.device("cpu"):
        scheduler = EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            prediction_type="v_prediction",
        )
    schedule: torch.Tensor = scheduler.alphas_cumprod.to(torch.get_default_device())
    return schedule
