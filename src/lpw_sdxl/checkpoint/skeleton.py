"""Diffusers' and Transformers' own modules without their weights: what parameters they will want.

Built on torch's meta device, which allocates nothing, from the same configuration that is written.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lpw_sdxl.checkpoint.keys import Shape
from lpw_sdxl.checkpoint.published import Config
from lpw_sdxl.weights.component import Component


def parameter_shapes(configs: Mapping[Component, Config]) -> dict[Component, dict[str, Shape]]:
    """Return the name and shape of every tensor that each component loads."""
    return {component: _shapes(component, config) for component, config in configs.items()}


def _shapes(component: Component, config: Config) -> dict[str, Shape]:
    with torch.device("meta"):
        module = _build(component, config)
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def _build(component: Component, config: Config) -> torch.nn.Module:
    match component:
        case Component.UNET:
            return UNet2DConditionModel.from_config(config)
        case Component.VAE:
            return AutoencoderKL.from_config(config)
        case Component.TEXT_ENCODER:
            return CLIPTextModel(CLIPTextConfig.from_dict(config))
        case Component.TEXT_ENCODER_2:
            return CLIPTextModelWithProjection(CLIPTextConfig.from_dict(config))
