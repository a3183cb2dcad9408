"""Diffusers' and Transformers' configuration files for an SDXL model; pure, no torch.

`published.py` has the files of SDXL base 1.0; what depends on the checkpoint is put in here.
"""

from __future__ import annotations

from lpw_sdxl.checkpoint.architecture import (
    Architecture,
    TextEncoderSizes,
    UNetSizes,
    VaeSizes,
    norm_groups,
)
from lpw_sdxl.checkpoint.inspect import CheckpointSummary
from lpw_sdxl.checkpoint.published import Config, read_config
from lpw_sdxl.schema import LATENT_SCALE, ImageSize
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype

_INPAINTING_CLASS = "StableDiffusionXLInpaintPipeline"


def component_configs(
    architecture: Architecture, native_size: ImageSize, dtype: CheckpointDtype
) -> dict[Component, Config]:
    """Return the configuration of each network."""
    first, second = architecture.encoders
    changes = {
        Component.UNET: _unet_sizes(architecture.unet, native_size),
        Component.VAE: _vae_sizes(architecture.vae, native_size),
        Component.TEXT_ENCODER: _encoder_sizes(first, dtype),
        Component.TEXT_ENCODER_2: _encoder_sizes(second, dtype),
    }
    return {component: read_config(component) | own for component, own in changes.items()}


def pipeline_config(sizes: UNetSizes) -> Config:
    """Return the list of a pipeline's parts, and Diffusers' class that loads them as one."""
    usual = read_config("model_index")
    return usual | {"_class_name": _INPAINTING_CLASS} if sizes.is_inpainting else usual


def scheduler_config(summary: CheckpointSummary) -> Config:
    """Return SDXL's scheduler for what the checkpoint predicts, with its schedule type."""
    prediction = summary.prediction
    return read_config("scheduler") | {
        "prediction_type": prediction.type.value,
        "rescale_betas_zero_snr": prediction.has_zero_snr,
        "timestep_spacing": summary.schedule_type.value,
    }


def _unet_sizes(sizes: UNetSizes, native_size: ImageSize) -> Config:
    attends = [layers > 0 for layers in sizes.transformer_layers]
    return {
        "attention_head_dim": list(sizes.heads),  # Diffusers' name for the number of heads
        "block_out_channels": list(sizes.widths),
        "cross_attention_dim": sizes.context_width,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "in_channels": sizes.input_channels,
        "norm_num_groups": norm_groups(sizes.widths),
        "projection_class_embeddings_input_dim": sizes.added_width,
        "sample_size": max(native_size) // LATENT_SCALE,
        # A level without attention has a depth all the same; SDXL's file has 1.
        "transformer_layers_per_block": [max(1, layers) for layers in sizes.transformer_layers],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
    }


def _vae_sizes(sizes: VaeSizes, native_size: ImageSize) -> Config:
    return {
        "block_out_channels": list(sizes.widths),
        "norm_num_groups": norm_groups(sizes.widths),
        "sample_size": max(native_size),
    }


def _encoder_sizes(sizes: TextEncoderSizes, dtype: CheckpointDtype) -> Config:
    return {
        "dtype": dtype.value,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.mlp_width,
        "max_position_embeddings": sizes.positions,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "projection_dim": sizes.projection_width,
        "vocab_size": sizes.vocabulary,
    }
