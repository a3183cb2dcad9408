"""Diffusers' and Transformers' configuration files for an SDXL model; pure, no torch.

The fixed values are those of SDXL base 1.0's published configuration; sizes come from the
checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from lpw_sdxl.checkpoint.architecture import (
    LAYERS_PER_LEVEL,
    SIZE_EMBEDDING_WIDTH,
    Architecture,
    TextEncoderSizes,
    UNetSizes,
    VaeSizes,
)
from lpw_sdxl.checkpoint.inspect import CheckpointSummary, PredictionType
from lpw_sdxl.schema import LATENT_SCALE, ImageSize
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype

Config = dict[str, object]

DIFFUSERS_VERSION = "0.42.1"
"""The version whose layout the files follow; Diffusers mends files that name an old one."""


@dataclass(frozen=True)
class _Encoder:
    """What tells the two text encoders apart besides their sizes."""

    class_name: str
    activation: str


_ENCODERS = (
    _Encoder("CLIPTextModel", "quick_gelu"),  # OpenAI's CLIP ViT-L
    _Encoder("CLIPTextModelWithProjection", "gelu"),  # OpenCLIP ViT-bigG
)


def component_configs(
    architecture: Architecture, native_size: ImageSize, dtype: CheckpointDtype
) -> dict[Component, Config]:
    """Return the configuration of each network."""
    first, second = (
        _encoder_config(encoder, sizes, dtype)
        for encoder, sizes in zip(_ENCODERS, architecture.encoders, strict=True)
    )
    return {
        Component.UNET: _unet_config(architecture.unet, native_size),
        Component.VAE: _vae_config(architecture.vae, native_size),
        Component.TEXT_ENCODER: first,
        Component.TEXT_ENCODER_2: second,
    }


def scheduler_config(summary: CheckpointSummary) -> Config:
    """Return SDXL's scheduler for what the checkpoint predicts.

    Zero terminal SNR needs sampling to begin at the last timestep, hence trailing spacing (Lin et
    al., "Common Diffusion Noise Schedules and Sample Steps Are Flawed", 2023, section 3.3).
    """
    prediction = summary.prediction
    is_plain = prediction == (PredictionType.EPSILON, False)
    return {
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction.type.value,
        "rescale_betas_zero_snr": prediction.has_zero_snr,
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "leading" if is_plain else "trailing",
        "trained_betas": None,
        "use_karras_sigmas": False,
    }


def model_index() -> Config:
    """Return the file that tells Diffusers what the model directory holds."""
    return {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": DIFFUSERS_VERSION,
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", _ENCODERS[0].class_name],
        "text_encoder_2": ["transformers", _ENCODERS[1].class_name],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _unet_config(sizes: UNetSizes, native_size: ImageSize) -> Config:
    attends = [layers > 0 for layers in sizes.transformer_layers]
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": DIFFUSERS_VERSION,
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": SIZE_EMBEDDING_WIDTH,
        "attention_head_dim": list(sizes.heads),  # Diffusers' name for the number of heads
        "block_out_channels": list(sizes.widths),
        "center_input_sample": False,
        "class_embed_type": None,
        "class_embeddings_concat": False,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_dim": sizes.context_width,
        "cross_attention_norm": None,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "downsample_padding": 1,
        "dual_cross_attention": False,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": LAYERS_PER_LEVEL,
        "mid_block_only_cross_attention": None,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_eps": 1e-05,
        "norm_num_groups": sizes.norm_groups,
        "num_attention_heads": None,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": sizes.added_width,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "default",
        "sample_size": max(native_size) // LATENT_SCALE,
        "time_cond_proj_dim": None,
        "time_embedding_act_fn": None,
        "time_embedding_dim": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
        # A level without attention has a depth all the same; SDXL's file says 1.
        "transformer_layers_per_block": [max(1, layers) for layers in sizes.transformer_layers],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "upcast_attention": None,
        "use_linear_projection": True,
    }


def _vae_config(sizes: VaeSizes, native_size: ImageSize) -> Config:
    levels = len(sizes.widths)
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": DIFFUSERS_VERSION,
        "act_fn": "silu",
        "block_out_channels": list(sizes.widths),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "force_upcast": True,  # SDXL's VAE overflows in float16
        "in_channels": 3,
        "latent_channels": sizes.latent_channels,
        "layers_per_block": LAYERS_PER_LEVEL,
        "norm_num_groups": sizes.norm_groups,
        "out_channels": 3,
        "sample_size": max(native_size),
        "scaling_factor": 0.13025,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def _encoder_config(encoder: _Encoder, sizes: TextEncoderSizes, dtype: CheckpointDtype) -> Config:
    return {
        "architectures": [encoder.class_name],
        "attention_dropout": 0.0,
        # SDXL ships CLIP's old ids; Transformers reads 2 as "pool at the highest id".
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "dropout": 0.0,
        "dtype": dtype.value,
        "hidden_act": encoder.activation,
        "hidden_size": sizes.width,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": sizes.mlp_width,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": sizes.positions,
        "model_type": "clip_text_model",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "projection_dim": sizes.projection_width,
        "vocab_size": sizes.vocabulary,
    }
