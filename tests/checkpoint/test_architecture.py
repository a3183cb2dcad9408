"""Sizes read from shapes, and the configuration that follows from them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from lpw_sdxl.checkpoint.architecture import read_architecture
from lpw_sdxl.checkpoint.configs import (
    Component,
    component_configs,
    scheduler_config,
)
from lpw_sdxl.checkpoint.inspect import Prediction, PredictionType, summarise
from lpw_sdxl.checkpoint.parameters import parameters_of
from lpw_sdxl.checkpoint.plan import plan_conversion
from lpw_sdxl.checkpoint.published import read_config
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.schedule_types import ScheduleType
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.weights.dtypes import CheckpointDtype
from tests.forge.checkpoint import SyntheticSize, tensor_shapes

from .conftest import Shapes, header_of

UNET = "model.diffusion_model."


@pytest.mark.parametrize("size", SyntheticSize)
def test_sizes_are_read_back_from_the_shapes(size: SyntheticSize):
    assert read_architecture(header_of(tensor_shapes(size))) == size.value


def test_head_counts_follow_sdxl_and_the_small_rule():
    full, tiny = SyntheticSize.FULL.value, SyntheticSize.TINY.value
    assert (full.unet.heads, tiny.unet.heads) == ((5, 10, 20), (2, 4, 4))
    assert [encoder.heads for encoder in full.encoders] == [12, 20]
    assert [encoder.heads for encoder in tiny.encoders] == [4, 4]


def test_full_size_configuration_is_sdxls_own():
    # From the files published with SDXL base 1.0.
    published = {
        Component.UNET: {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280],
            "cross_attention_dim": 2048,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "projection_class_embeddings_input_dim": 2816,
            "sample_size": 128,
            "transformer_layers_per_block": [1, 2, 10],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "upcast_attention": None,
            "use_linear_projection": True,
        },
        Component.VAE: {
            "block_out_channels": [128, 256, 512, 512],
            "force_upcast": True,
            "sample_size": 1024,
            "scaling_factor": 0.13025,
        },
        Component.TEXT_ENCODER: {
            "hidden_act": "quick_gelu",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
            "projection_dim": 768,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
        Component.TEXT_ENCODER_2: {
            "hidden_act": "gelu",
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_attention_heads": 20,
            "num_hidden_layers": 32,
            "projection_dim": 1280,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
    }
    configs = component_configs(
        SyntheticSize.FULL.value, ImageSize(1024, 1024), CheckpointDtype.FLOAT16
    )
    for component, values in published.items():
        assert {key: configs[component][key] for key in values} == values
    assert read_config("model_index")["force_zeros_for_empty_prompt"] is True


@pytest.mark.parametrize(
    ("prediction", "zero_snr", "spacing"),
    [
        (PredictionType.EPSILON, False, "leading"),
        (PredictionType.V_PREDICTION, False, "trailing"),
        (PredictionType.V_PREDICTION, True, "trailing"),
    ],
)
def test_scheduler_follows_the_prediction_type(
    tiny_shapes: Shapes, prediction: PredictionType, zero_snr: bool, spacing: str
):
    plain = summarise(header_of(tiny_shapes))
    config = scheduler_config(replace(plain, prediction=Prediction(prediction, zero_snr)))
    assert config["prediction_type"] == prediction.value
    assert config["rescale_betas_zero_snr"] is zero_snr
    assert config["timestep_spacing"] == spacing
    assert config["clip_sample"] is False
    for chosen in ScheduleType:
        summary = replace(
            plain, prediction=Prediction(prediction, zero_snr), chosen_schedule_type=chosen
        )
        assert scheduler_config(summary) == config | {"timestep_spacing": chosen.value}


@pytest.mark.parametrize(
    "stray",
    [
        UNET + "input_blocks.1.1.transformer_blocks.0.more",
        UNET + "input_blocks.4.1.transformer_blocks.1.more",
        UNET + "input_blocks.7.1.transformer_blocks.2.more",
        "conditioner.embedders.0.transformer.text_model.encoder.layers.12.more",
        "conditioner.embedders.1.model.transformer.resblocks.12.more",
        "conditioner.embedders.1.transformer.text_model.encoder.layers.0.more",
        "first_stage_model.encoder.down.4.more",
    ],
)
def test_a_stray_tensor_makes_no_layer(tiny_shapes: Shapes, stray: str):
    assert read_architecture(header_of({**tiny_shapes, stray: (2,)})) == SyntheticSize.TINY.value


@pytest.mark.parametrize(
    "template",
    [
        UNET + "input_blocks.7.1.transformer_blocks.{}.norm1.weight",
        "conditioner.embedders.0.transformer.text_model.encoder.layers.{}.layer_norm1.weight",
    ],
)
def test_a_hostile_number_of_layers_costs_no_time(tiny_shapes: Shapes, template: str):
    shapes = {**tiny_shapes, **{template.format(i): (64,) for i in range(18_000)}}
    header = header_of(shapes)
    began = time.process_time()
    targets = parameters_of(read_architecture(header))
    with pytest.raises(CheckpointError, match="lacks tensors"):
        plan_conversion(header, targets)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("name", "shape", "named"),
    [
        (UNET + "label_emb.0.0.weight", None, r"label_emb\.0\.0\.weight"),
        (UNET + "label_emb.0.0.weight", (128, 9), r"label_emb\.0\.0\.weight must take 1600"),
        (UNET + "input_blocks.1.0.out_layers.3.weight", (32, 32), r"input_blocks\.1.* dimensions"),
        (UNET + "input_blocks.1.0.out_layers.3.weight", (0, 32, 3, 3), "none of them 0"),
        (UNET + "input_blocks.4.0.out_layers.3.weight", (60, 60, 3, 3), "multiples of 8"),
        (
            UNET + "input_blocks.7.1.transformer_blocks.0.attn2.to_k.weight",
            (64, 95),
            r"attn2\.to_k\.weight must take 96",
        ),
        ("first_stage_model.post_quant_conv.weight", (16, 16, 1, 1), "four latent channels"),
        ("conditioner.embedders.1.model.text_projection", (64,), r"text_projection .*2 dim"),
        ("conditioner.embedders.1.model.positional_embedding", (76, 64), "77 positions"),
    ],
)
def test_shapes_that_sdxl_cannot_have_are_refused(
    tiny_shapes: dict[str, tuple[int, ...]], name: str, shape: tuple[int, ...] | None, named: str
):
    shapes = dict(tiny_shapes)
    del shapes[name]
    if shape is not None:
        shapes[name] = shape
    with pytest.raises(CheckpointError, match=named):
        read_architecture(header_of(shapes))
