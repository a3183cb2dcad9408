"""Every kind of file that people bring is told by its tensors' names, and refused by its name."""

from __future__ import annotations

import re

import pytest

from lpw_sdxl.checkpoint.inspect import recognise
from lpw_sdxl.checkpoint.kinds import QUANTISATION_NOTE, CheckpointKind, kind_of
from lpw_sdxl.checkpoint.layout import standardise
from lpw_sdxl.errors import UnsupportedCheckpointError

from .conftest import Shapes, header_of

UNET = "model.diffusion_model."
UNET_ENTRY = UNET + "input_blocks.0.0.weight"
SIZES = UNET + "label_emb.0.0.weight"
SDXL: Shapes = {
    UNET_ENTRY: (320, 4, 3, 3),
    SIZES: (1280, 2816),
    UNET + "middle_block.0.in_layers.0.bias": (1280,),
    UNET + "middle_block.1.norm.bias": (1280,),
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias": (768,),
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
LAYER = UNET + "input_blocks.4.1.transformer_blocks.0.attn1.to_q."
NO_MIDDLE = {name: shape for name, shape in SDXL.items() if "middle_block.1." not in name}

# The names are those that wild.md's sources tell the kinds apart by: ComfyUI's model_detection.py,
# Diffusers' single_file_utils.py, SwarmUI's T2IModelClassSorter.cs, stable-diffusion.cpp.
FILES: dict[CheckpointKind, list[Shapes]] = {
    CheckpointKind.SD1: [
        {"cond_stage_model.transformer.text_model.final_layer_norm.bias": (768,)}
        | {UNET_ENTRY: (320, 4, 3, 3)},
        {"cond_stage_model.transformer.embeddings.position_ids": (1, 77)}
        | {UNET_ENTRY: (320, 9, 3, 3), "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)},
    ],
    CheckpointKind.SDXL_CPP: [
        {"cond_stage_model.transformer.text_model.final_layer_norm.bias": (768,)}
        | {"cond_stage_model.1.transformer.text_model.final_layer_norm.bias": (1280,)}
        | {UNET_ENTRY: (320, 4, 3, 3), SIZES: (1280, 2816)},
    ],
    CheckpointKind.SD2: [
        {"cond_stage_model.model.ln_final.bias": (1024,), UNET_ENTRY: (320, 9, 3, 3)},
        # SD 2.1 Turbo: in the refiner's place, without its size embedding.
        {"conditioner.embedders.0.model.ln_final.bias": (1024,)}
        | {"denoiser.sigmas": (1000,), UNET_ENTRY: (320, 4, 3, 3)},
    ],
    CheckpointKind.SDXL_REFINER: [
        {"conditioner.embedders.0.model.ln_final.bias": (1280,)}
        | {UNET_ENTRY: (384, 4, 3, 3), SIZES: (1536, 2560)}
    ],
    CheckpointKind.SDXL_EDITING: [
        SDXL | {UNET_ENTRY: (320, 8, 3, 3)},
        SDXL | {UNET_ENTRY: (320, 32, 3, 3)},  # another VAE's latents
    ],
    CheckpointKind.SDXL_QUANTISED: [
        SDXL | {UNET + "scaled_fp8": (0,)},
        SDXL | {LAYER + "scale_weight": ()},
        SDXL | {LAYER + "scale_input": ()},
        SDXL | {LAYER + "weight_scale": (), LAYER + "comfy_quant": (40,)},
        SDXL | {LAYER + "weight_scale_2": ()},
        SDXL | {LAYER + "input_scale": ()},
        SDXL | {LAYER + "weight.absmax": (64,), LAYER + "weight.quant_map": (16,)},
        SDXL | {LAYER + "weight.quant_state.bitsandbytes__nf4": (90,)},
        SDXL | {LAYER + "qweight": (40, 320)},
        {LAYER.removeprefix("model.") + "weight_scale": ()},
    ],
    CheckpointKind.SDXL_PRUNED: [
        NO_MIDDLE | {UNET + "output_blocks.3.1.transformer_blocks.1.norm1.bias": (640,)},  # SSD-1B
        NO_MIDDLE,  # Vega
    ],
    CheckpointKind.SDXL_UNET: [
        {SIZES: (1280, 2816)},
        {SIZES: (1280, 2816), "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)},
        {"diffusion_model.label_emb.0.0.weight": (1280, 2816)},
        {"input_blocks.0.0.weight": (320, 4, 3, 3), "label_emb.0.0.weight": (1280, 2816)},
    ],
    CheckpointKind.PLAYGROUND: [
        SDXL | {"edm_mean": (1, 4, 1, 1), "edm_std": (1, 4, 1, 1)},
        SDXL | {"model.edm_mean": (1, 4, 1, 1)},
    ],
    CheckpointKind.COSXL: [
        SDXL | {"edm_vpred.sigma_max": (), "edm_vpred.sigma_min": ()},
        SDXL | {"edm_vpred.sigma_max": (), UNET_ENTRY: (320, 8, 3, 3)},  # CosXL Edit
        SDXL | {"model.edm_vpred.sigma_min": ()},
    ],
    CheckpointKind.KOLORS: [
        {"encoder_hid_proj.weight": (2048, 4096), "down_blocks.0.resnets.0.conv1.bias": (320,)},
        {UNET + "encoder_hid_proj.weight": (2048, 4096), SIZES: (1280, 5632)},
    ],
    CheckpointKind.SD3: [
        {UNET + "joint_blocks.0.context_block.attn.qkv.bias": (8,)},
        {"joint_blocks.0.context_block.attn.qkv.bias": (8,)}
        | {"text_encoders.clip_g.transformer.text_model.final_layer_norm.bias": (1280,)},
    ],
    CheckpointKind.VIDEO_DIFFUSION: [
        {UNET + "input_blocks.1.0.time_stack.emb_layers.1.bias": (320,), SIZES: (1280, 768)}
        | {"conditioner.embedders.0.open_clip.model.ln_final.bias": (1024,)},
        {UNET + "input_blocks.8.0.time_mixer.mix_factor": (1,), UNET_ENTRY: (320, 8, 3, 3)},
    ],
    CheckpointKind.CASCADE: [
        {"clf.1.weight": (16, 8, 1, 1), "clip_txt_mapper.weight": (8, 8)},
        {"clip_mapper.weight": (8, 8), "down_blocks.0.0.channelwise.0.bias": (8,)},
        {"vquantizer.codebook.weight": (8, 4), "down_blocks.0.0.bias": (8,)},
    ],
    CheckpointKind.FLUX: [
        {"double_blocks.0.img_attn.norm.key_norm.scale": (8,), "img_in.weight": (8, 8)},
        {UNET + "double_blocks.0.img_attn.qkv.weight": (8, 8)},
        {"single_transformer_blocks.0.attn.to_q.weight": (8, 8)},
        {"double_stream_modulation_img.lin.weight": (8, 8)},
    ],
    CheckpointKind.CHROMA: [
        {"distilled_guidance_layer.in_proj.bias": (8,)}
        | {"double_blocks.0.img_attn.qkv.weight": (8, 8)},
        {UNET + "distilled_guidance_layer.norms.0.scale": (8,), UNET + "double_blocks.0.x": (8,)},
    ],
    CheckpointKind.HUNYUAN: [
        {"txt_in.individual_token_refiner.blocks.0.norm1.bias": (8,)}
        | {"double_blocks.0.img_attn.qkv.weight": (8, 8)},
        {UNET + "byt5_in.fc1.bias": (8,), UNET + "double_blocks.0.img_attn.qkv.bias": (8,)},
        {"mlp_t5.0.weight": (8, 8)},
        {"latent_in.weight": (8, 8), "double_blocks.0.img_attn.qkv.weight": (8, 8)},
    ],
    CheckpointKind.PIXART: [
        {"t_block.1.weight": (8, 8)},
        {"adaln_single.emb.timestep_embedder.linear_1.bias": (8,), "pos_embed.proj.bias": (8,)},
    ],
    CheckpointKind.AURAFLOW: [
        {UNET + "double_layers.0.attn.w1q.weight": (8, 8)},
        {"joint_transformer_blocks.0.attn.add_k_proj.weight": (8, 8)},
    ],
    CheckpointKind.LUMINA: [
        {"noise_refiner.0.attention.k_norm.weight": (8,), "cap_embedder.1.weight": (8, 8)}
    ],
    CheckpointKind.QWEN_IMAGE: [{"transformer_blocks.0.img_mod.1.weight": (8, 8)}],
    CheckpointKind.WAN: [{"head.modulation": (1, 2, 8)}, {UNET + "head.modulation": (1, 2, 8)}],
    CheckpointKind.LTX: [
        {"patchify_proj.weight": (8, 8)}
        | {"adaln_single.emb.timestep_embedder.linear_1.bias": (8,), "vae.decoder.x": (1,)}
    ],
    CheckpointKind.LORA: [
        {"lora_unet_input_blocks_4_1_proj_in.lora_up.weight": (8, 4)},
        {"unet.down_blocks.1.attentions.0.proj_in.lora_A.weight": (4, 8)},
        {"unet.down_blocks.1.attentions.0.to_q_lora.up.weight": (4, 8)},
        {"lora_te1_text_model_encoder_layers_0_mlp_fc1.hada_w1_a": (4, 8)},
        {"lora_unet_output_blocks_0_1_proj_in.lokr_w1": (4, 8)},
        {"lora_unet_output_blocks_0_1_proj_in.oft_blocks": (4, 8, 8)},
        {"oft_unet_output_blocks_0_1_proj_in.oft_diag": (4, 8)},
        {"lycoris_input_blocks_4_1_proj_in.a1.weight": (4, 8)},  # GLoRA
        {"lora_unet_input_blocks_4_1_proj_in.diff": (4, 8)},  # full differences
        {"unet.down_blocks.1.attentions.0.proj_in.diff": (4, 8)},
        {"down_blocks.1.attentions.0.proj_in.weight.diff": (4, 8)},
        {"unet.conv_in.diff_b": (8,)},
        {"unet.down_blocks.1.attentions.0.norm.w_norm": (8,)},
        {"lora_te2_text_projection.on_input": (4,)},  # IA3
        {"double_blocks.0.img_attn.qkv.lora_down.weight": (4, 8)},  # Flux's
        {"lora_unet_x.lora_up.weight": (8, 4), "bundle_emb.style.clip_l": (4, 768)},
    ],
    CheckpointKind.EMBEDDING: [
        {"clip_l": (4, 768), "clip_g": (4, 1280)},
        {"emb_params": (4, 768)},
    ],
    CheckpointKind.CONTROLNET: [
        {"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)},
        {"controlnet_cond_embedding.conv_in.weight": (8, 3, 3, 3), "down_blocks.0.x": (1,)},
        {"input_hint_block.0.weight": (8, 3, 3, 3)},
        {"controlnet_blocks.0.bias": (8,), "transformer_blocks.0.x": (8,)},
        {"lllite_unet_input_blocks_4_1.down.0.weight": (8, 8)},
        {"lora_controlnet": (0,), "input_blocks.4.1.proj_in.up": (8, 8)},
    ],
    CheckpointKind.IP_ADAPTER: [
        {"image_proj.proj.weight": (8, 8), "ip_adapter.1.to_k_ip.weight": (8, 8)}
    ],
    CheckpointKind.T2I_ADAPTER: [{"adapter.body.0.resnets.0.block1.weight": (8, 8, 3, 3)}],
    CheckpointKind.MOTION_MODULE: [
        {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (8,)}
    ],
    CheckpointKind.UPSCALER: [
        {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)},
        {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)},
        {"conv_first.weight": (64, 3, 3, 3), "RRDB_trunk.0.RDB1.conv1.weight": (32, 64, 3, 3)},
        {"body.0.weight": (64, 3, 3, 3), "body.1.weight": (64,), "body.2.weight": (64, 64, 3, 3)},
    ],
    CheckpointKind.DIFFUSERS_UNET: [
        {"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)},
        {"unet.down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)},
    ],
    CheckpointKind.VAE: [
        {"decoder.conv_in.weight": (8, 4, 3, 3), "decoder.up.0.block.0.conv1.weight": (8, 8, 3, 3)},
        {"first_stage_model.decoder.conv_in.weight": (8, 8, 3, 3)},
        {"vae.decoder.conv_in.weight": (8, 8, 3, 3)},
        {"decoder.conv_in.weight": (8, 4, 3, 3), "decoder.mid_block.attentions.0.key.bias": (8,)},
    ],
    CheckpointKind.SMALL_VAE: [
        {"encoder.layers.0.weight": (8, 3, 3, 3), "decoder.layers.1.weight": (8, 4, 3, 3)},
        {"taesd_decoder.1.weight": (8, 4, 3, 3)},
    ],
    CheckpointKind.TEXT_ENCODER: [
        {"text_model.encoder.layers.0.mlp.fc1.bias": (8,)},
        {"transformer.resblocks.0.ln_1.bias": (8,)},
        {"encoder.block.0.layer.0.SelfAttention.q.weight": (8, 8), "shared.weight": (8, 8)},  # T5
    ],
    CheckpointKind.IMAGE_ENCODER: [
        {"vision_model.encoder.layers.0.mlp.fc1.bias": (8,)},
        {"visual.transformer.resblocks.0.ln_1.bias": (8,)},
    ],
    CheckpointKind.UNKNOWN: [{"bert.embeddings.word_embeddings.weight": (8, 8)}, {}],
}


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        pytest.param(kind, shapes, id=f"{kind.name}{index or ''}")
        for kind, many in FILES.items()
        for index, shapes in enumerate(many)
    ],
)
def test_what_is_not_served_is_refused_by_its_name(kind: CheckpointKind, shapes: Shapes):
    with pytest.raises(UnsupportedCheckpointError) as refused:
        recognise(standardise(header_of(shapes)))
    assert str(refused.value) == f"model.safetensors is {kind.title}; {kind.advice}."


def test_every_kind_that_is_not_served_has_a_file_and_an_advice_here():
    served = {CheckpointKind.SDXL, CheckpointKind.SDXL_INPAINTING}
    assert set(FILES) == set(CheckpointKind) - served
    assert all(kind.advice and not kind.is_served for kind in FILES)
    assert all(kind.is_served and not kind.advice for kind in served)


def test_no_two_kinds_have_one_name():
    assert len({kind.title for kind in CheckpointKind}) == len(CheckpointKind)


@pytest.mark.parametrize("wrapper", ["state_dict.", "module.", "state_dict.module."])
def test_a_wrapper_around_every_name_changes_no_kind(wrapper: str):
    for kind in (CheckpointKind.SDXL_EDITING, CheckpointKind.SD1, CheckpointKind.FLUX):
        shapes = {wrapper + name: shape for name, shape in FILES[kind][0].items()}
        with pytest.raises(UnsupportedCheckpointError, match=re.escape(kind.title)):
            recognise(standardise(header_of(shapes)))


def test_a_quantised_file_is_told_by_its_note_alone():
    header = header_of(SDXL, **{QUANTISATION_NOTE: '{"layers": {}}'})
    with pytest.raises(UnsupportedCheckpointError, match="quantised with scales of its own"):
        recognise(standardise(header))


SERVED: dict[str, Shapes] = {
    "base": SDXL,
    "without VAE": {k: v for k, v in SDXL.items() if "first_stage" not in k},
    "with markers": SDXL | {"v_pred": (0,), "ztsnr": (0,), "model_ema.decay": ()},
    "as Forge saved it": {
        UNET_ENTRY: (320, 4, 3, 3),
        "text_encoders.clip_l.transformer.text_model.final_layer_norm.bias": (768,),
        "text_encoders.clip_g.transformer.text_model.final_layer_norm.bias": (1280,),
        "vae.decoder.conv_in.weight": (512, 4, 3, 3),
    },
    "with SD 1's position numbers": SDXL
    | {"cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77)},
}


@pytest.mark.parametrize("shapes", SERVED.values(), ids=SERVED.keys())
def test_sdxl_is_recognised(shapes: Shapes):
    assert recognise(standardise(header_of(shapes))).kind is CheckpointKind.SDXL


INPAINTING = SDXL | {UNET_ENTRY: (320, 9, 3, 3)}


@pytest.mark.parametrize("wrapper", ["", "state_dict.", "module."])
def test_an_inpainting_model_is_told_by_the_channels_that_its_unet_takes(wrapper: str):
    shapes = {wrapper + name: shape for name, shape in INPAINTING.items()}
    kind = recognise(standardise(header_of(shapes))).kind
    assert kind is CheckpointKind.SDXL_INPAINTING


def test_a_video_vae_is_not_offered_to_vae():
    shapes = {"decoder.conv_in.conv.bias": (8,), "encoder.conv_in.conv.bias": (8,)}
    assert kind_of(header_of(shapes).tensors, {}) is CheckpointKind.UNKNOWN


def test_sdxl_with_one_text_encoder_is_told_to_lack_one():
    shapes = {name: shape for name, shape in SDXL.items() if "embedders.1." not in name}
    with pytest.raises(UnsupportedCheckpointError, match="without its two text encoders"):
        recognise(standardise(header_of(shapes)))
