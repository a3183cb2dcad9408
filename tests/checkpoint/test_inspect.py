"""What a file is, from its header alone."""

from __future__ import annotations

import pytest

from lpw_sdxl.checkpoint.inspect import CheckpointKind, PredictionType, recognise, summarise
from lpw_sdxl.errors import CheckpointError, UnsupportedCheckpointError
from lpw_sdxl.schema import ImageSize

from .conftest import Shapes, header_of

UNET_ENTRY = "model.diffusion_model.input_blocks.0.0.weight"
SECOND = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
SDXL = {
    UNET_ENTRY: (320, 4, 3, 3),
    "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
    SECOND: (1280,),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
FILES: dict[CheckpointKind, list[Shapes]] = {
    CheckpointKind.SD1: [
        {"cond_stage_model.transformer.text_model.final_layer_norm.bias": (768,)}
        | {UNET_ENTRY: (320, 4, 3, 3)}
    ],
    CheckpointKind.SD2: [
        {"cond_stage_model.model.ln_final.bias": (1024,), UNET_ENTRY: (320, 9, 3, 3)}
    ],
    CheckpointKind.SDXL_REFINER: [
        {"conditioner.embedders.0.model.ln_final.bias": (1280,), UNET_ENTRY: (384, 4, 3, 3)}
    ],
    CheckpointKind.SDXL_INPAINTING: [SDXL | {UNET_ENTRY: (320, 9, 3, 3)}],
    CheckpointKind.SDXL_EDITING: [SDXL | {UNET_ENTRY: (320, 8, 3, 3)}],
    CheckpointKind.SDXL_UNET: [{"model.diffusion_model.label_emb.0.0.weight": (1280, 2816)}],
    CheckpointKind.SD3: [{"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.bias": (8,)}],
    CheckpointKind.FLUX: [
        {"double_blocks.0.img_attn.qkv.weight": (8, 8)},
        {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (8, 8)},
    ],
    CheckpointKind.LORA: [
        {"lora_unet_input_blocks_4_1_proj_in.lora_up.weight": (8, 4)},
        {"unet.down_blocks.1.attentions.0.proj_in.lora_A.weight": (4, 8)},
        {"lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w1_a": (4, 8)},
        {"lora_unet_output_blocks_0_1_proj_in.lokr_w1": (4, 8)},
    ],
    CheckpointKind.CONTROLNET: [
        {"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)},
        {"controlnet_cond_embedding.conv_in.weight": (8, 3, 3, 3), "down_blocks.0.x": (1,)},
    ],
    CheckpointKind.DIFFUSERS_UNET: [{"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}],
    CheckpointKind.VAE: [
        {"decoder.up.0.block.0.conv1.weight": (8, 8, 3, 3)},
        {"first_stage_model.decoder.conv_in.weight": (8, 8, 3, 3)},
    ],
    CheckpointKind.TEXT_ENCODER: [
        {"text_model.encoder.layers.0.mlp.fc1.bias": (8,)},
        {"transformer.resblocks.0.ln_1.bias": (8,)},
    ],
    CheckpointKind.EMBEDDING: [
        {"clip_l": (4, 768), "clip_g": (4, 1280)},
        {"emb_params": (4, 768)},
    ],
    CheckpointKind.UNKNOWN: [{"bert.embeddings.word_embeddings.weight": (8, 8)}, {}],
}


@pytest.mark.parametrize(
    ("kind", "shapes"), [(kind, shapes) for kind, many in FILES.items() for shapes in many], ids=str
)
def test_what_is_not_served_is_refused_by_its_name(kind: CheckpointKind, shapes: Shapes):
    with pytest.raises(UnsupportedCheckpointError) as refused:
        recognise(header_of(shapes))
    assert str(refused.value) == f"model.safetensors is {kind.title}; {kind.advice}."


def test_every_kind_but_sdxl_has_a_file_and_an_advice_here():
    assert set(FILES) == set(CheckpointKind) - {CheckpointKind.SDXL}
    assert all(kind.advice for kind in FILES)


def test_sdxl_is_recognised_with_what_it_holds():
    summary = recognise(header_of(SDXL | {"model_ema.decay": (1,)}))
    assert summary.kind is CheckpointKind.SDXL
    assert (summary.has_ema, summary.has_vae) == (True, True)
    assert summary.native_size == ImageSize(height=1024, width=1024)
    assert (summary.tensor_count, dict(summary.dtypes)) == (5, {"F16": 5})
    assert summary.prediction_type is PredictionType.EPSILON


def test_sdxl_without_vae_is_refused():
    shapes = {key: shape for key, shape in SDXL.items() if "first_stage" not in key}
    with pytest.raises(UnsupportedCheckpointError, match="without a VAE"):
        recognise(header_of(shapes))


def test_native_size_is_written_width_first():
    header = header_of(SDXL, **{"modelspec.resolution": "832x1216"})
    assert recognise(header).native_size == ImageSize(height=1216, width=832)


@pytest.mark.parametrize("text", ["", "big", "1024", "1023x1024", "8x8", "16384x1024", "-64x64"])
def test_native_size_that_makes_no_sense_is_refused(text: str):
    with pytest.raises(CheckpointError, match=r"modelspec\.resolution .*\{width\}x\{height\}"):
        summarise(header_of(SDXL, **{"modelspec.resolution": text}))


@pytest.mark.parametrize(
    ("markers", "metadata", "prediction", "zero_snr"),
    [
        ({}, {}, PredictionType.EPSILON, False),
        ({"v_pred": (0,)}, {}, PredictionType.V_PREDICTION, False),
        ({"v_pred": (0,), "ztsnr": (0,)}, {}, PredictionType.V_PREDICTION, True),
        ({}, {"modelspec.prediction_type": "v"}, PredictionType.V_PREDICTION, False),
        ({}, {"modelspec.prediction_type": "epsilon"}, PredictionType.EPSILON, False),
    ],
    ids=["none", "v_pred", "v_pred and ztsnr", "modelspec v", "modelspec epsilon"],
)
def test_markers_tell_what_the_model_predicts(
    markers: Shapes, metadata: dict[str, str], prediction: PredictionType, zero_snr: bool
):
    summary = recognise(header_of({**SDXL, **markers}, **metadata))
    assert (summary.prediction_type, summary.has_zero_snr) == (prediction, zero_snr)
