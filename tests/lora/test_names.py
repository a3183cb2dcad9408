"""Every module of SDXL is found by its name in every convention, and no two share a name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)

from lpw_sdxl.checkpoint.keys import sources_of
from lpw_sdxl.checkpoint.kinds import UNET as STABILITY
from lpw_sdxl.lora.forms import Factor
from lpw_sdxl.lora.names import FoundModule, ModuleNames, Naming, component_of, split_name
from lpw_sdxl.lora.targets import LORA_COMPONENTS, signature
from lpw_sdxl.weights.component import Component
from tests.forge.checkpoint import SyntheticSize

from .making import targets

UNET, FIRST, SECOND = LORA_COMPONENTS
TINY, FULL = SyntheticSize.TINY, SyntheticSize.FULL
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0."
FIRST_QUERY = "encoder.layers.0.self_attn.q_proj"
SECOND_QUERY = "text_model.encoder.layers.0.self_attn.q_proj"

# Names from published files; none of them is built by the code under test.
TABLE: list[tuple[str, Component, str, Factor, Naming]] = [
    (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
        UNET,
        BLOCK + "attn1.to_q",
        Factor.DOWN,
        Naming.KOHYA,
    ),
    (
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight",
        UNET,
        BLOCK + "attn1.to_out.0",
        Factor.UP,
        Naming.KOHYA,
    ),
    (
        "lora_unet.down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj.alpha",
        UNET,
        BLOCK + "ff.net.0.proj",
        Factor.ALPHA,
        Naming.KOHYA,
    ),
    (
        "lora_unet_middle_block_1_proj_in.dora_scale",
        UNET,
        "mid_block.attentions.0.proj_in",
        Factor.DORA_SCALE,
        Naming.KOHYA,
    ),
    (
        "lora_unet_output_blocks_2_2_conv.lora_mid.weight",
        UNET,
        "up_blocks.0.upsamplers.0.conv",
        Factor.MID,
        Naming.KOHYA,
    ),
    (
        "lora_unet_input_blocks_3_0_op.lora_down.weight",
        UNET,
        "down_blocks.0.downsamplers.0.conv",
        Factor.DOWN,
        Naming.KOHYA,
    ),
    (
        "lora_unet_input_blocks_4_0_in_layers_2.hada_w1_a",
        UNET,
        "down_blocks.1.resnets.0.conv1",
        Factor.HADA_W1_A,
        Naming.KOHYA,
    ),
    (
        "lora_unet_input_blocks_4_0_emb_layers_1.lokr_w2_b",
        UNET,
        "down_blocks.1.resnets.0.time_emb_proj",
        Factor.LOKR_W2_B,
        Naming.KOHYA,
    ),
    (
        "lora_unet_input_blocks_4_0_skip_connection.lokr_w1",
        UNET,
        "down_blocks.1.resnets.0.conv_shortcut",
        Factor.LOKR_W1,
        Naming.KOHYA,
    ),
    (
        "lora_unet_input_blocks_4_1_norm.w_norm",
        UNET,
        "down_blocks.1.attentions.0.norm",
        Factor.DIFF,
        Naming.KOHYA,
    ),
    ("lora_unet_input_blocks_0_0.diff_b", UNET, "conv_in", Factor.DIFF_B, Naming.KOHYA),
    ("lora_unet_out_2.lora_up.weight", UNET, "conv_out", Factor.UP, Naming.KOHYA),
    ("lora_unet_time_embed_0.diff", UNET, "time_embedding.linear_1", Factor.DIFF, Naming.KOHYA),
    ("lora_unet_label_emb_0_2.diff", UNET, "add_embedding.linear_2", Factor.DIFF, Naming.KOHYA),
    (
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.alpha",
        FIRST,
        FIRST_QUERY,
        Factor.ALPHA,
        Naming.KOHYA,
    ),
    (
        "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight",
        SECOND,
        SECOND_QUERY,
        Factor.UP,
        Naming.KOHYA,
    ),
    (
        "lora_te2.text_model.encoder.layers.0.mlp.fc1.lora_down.weight",
        SECOND,
        "text_model.encoder.layers.0.mlp.fc1",
        Factor.DOWN,
        Naming.KOHYA,
    ),
    (
        "lora_te2_text_projection.lora_down.weight",
        SECOND,
        "text_projection",
        Factor.DOWN,
        Naming.KOHYA,
    ),
    (
        "diffusion_model_output_blocks_0_1_proj_in.lora_down.weight",
        UNET,
        "up_blocks.0.attentions.0.proj_in",
        Factor.DOWN,
        Naming.KOHYA,
    ),
    (
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight.diff",
        UNET,
        BLOCK + "attn1.to_q",
        Factor.DIFF,
        Naming.DIFFUSERS,
    ),
    ("unet.conv_in.bias.diff", UNET, "conv_in", Factor.DIFF_B, Naming.DIFFUSERS),
    (
        "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lokr_w1_a",
        UNET,
        BLOCK + "attn1.to_q",
        Factor.LOKR_W1_A,
        Naming.LYCORIS,
    ),
    (
        "lycoris_te2_text_model_encoder_layers_0_self_attn_q_proj.lokr_t2",
        SECOND,
        SECOND_QUERY,
        Factor.LOKR_T2,
        Naming.LYCORIS,
    ),
    (
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_A.weight",
        UNET,
        BLOCK + "attn1.to_q",
        Factor.DOWN,
        Naming.COMFYUI,
    ),
    (
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"
        ".lora_up.weight",
        FIRST,
        FIRST_QUERY,
        Factor.UP,
        Naming.COMFYUI,
    ),
    (
        "clip_g.transformer.text_model.encoder.layers.0.self_attn.q_proj.diff",
        SECOND,
        SECOND_QUERY,
        Factor.DIFF,
        Naming.COMFYUI,
    ),
    (
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight",
        UNET,
        BLOCK + "attn1.to_q",
        Factor.UP,
        Naming.DIFFUSERS,
    ),
    (
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight",
        UNET,
        BLOCK + "attn1.to_q",
        Factor.DOWN,
        Naming.DIFFUSERS,
    ),
    (
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor"
        ".to_out_lora.up.weight",
        UNET,
        BLOCK + "attn1.to_out.0",
        Factor.UP,
        Naming.DIFFUSERS,
    ),
    (
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_v_lora.down.weight",
        UNET,
        BLOCK + "attn2.to_v",
        Factor.DOWN,
        Naming.DIFFUSERS,
    ),
    (
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_magnitude_vector",
        UNET,
        BLOCK + "attn1.to_q",
        Factor.MAGNITUDE,
        Naming.DIFFUSERS,
    ),
    (
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight",
        FIRST,
        FIRST_QUERY,
        Factor.DOWN,
        Naming.DIFFUSERS,
    ),
    (
        "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight",
        SECOND,
        SECOND_QUERY,
        Factor.UP,
        Naming.DIFFUSERS,
    ),
    (
        "text_encoder.encoder.layers.0.self_attn.out_proj.lora_A.weight",
        FIRST,
        "encoder.layers.0.self_attn.out_proj",
        Factor.DOWN,
        Naming.DIFFUSERS,
    ),
    (
        "base_model.model.mid_block.attentions.0.proj_out.lora_A.default.weight",
        UNET,
        "mid_block.attentions.0.proj_out",
        Factor.DOWN,
        Naming.PEFT,
    ),
    (
        "unet.base_model.model.mid_block.attentions.0.proj_out.lora_magnitude_vector.mine.weight",
        UNET,
        "mid_block.attentions.0.proj_out",
        Factor.MAGNITUDE,
        Naming.PEFT,
    ),
    (
        "base_model.model.mid_block.attentions.0.proj_out.lora_magnitude_vector.default",
        UNET,
        "mid_block.attentions.0.proj_out",
        Factor.MAGNITUDE,
        Naming.PEFT,
    ),
]

CONVENTIONS: dict[str, tuple[Component, Callable[[str], str]]] = {
    "kohya": (UNET, lambda path: f"lora_unet_{stability(path)}".replace(".", "_")),
    "kohya with Diffusers' blocks": (UNET, lambda path: f"lora_unet_{path}".replace(".", "_")),
    "kohya with dots": (UNET, lambda path: f"lora_unet.{path}"),
    "LyCORIS": (UNET, lambda path: f"lycoris_{path}".replace(".", "_")),
    "ComfyUI": (UNET, lambda path: f"diffusion_model.{stability(path)}"),
    "Diffusers": (UNET, lambda path: f"unet.{path}"),
    "a UNet alone": (UNET, lambda path: path),
    "PEFT": (UNET, lambda path: f"base_model.model.{path}"),
    "kohya, first encoder": (FIRST, lambda path: f"lora_te1_{clip(path)}".replace(".", "_")),
    "ComfyUI, first encoder": (
        FIRST,
        lambda path: f"text_encoders.clip_l.transformer.{clip(path)}",
    ),
    "Diffusers, first encoder": (FIRST, lambda path: f"text_encoder.{clip(path)}"),
    "kohya, second encoder": (SECOND, lambda path: f"lora_te2_{clip(path)}".replace(".", "_")),
    "ComfyUI, second encoder": (
        SECOND,
        lambda path: f"text_encoders.clip_g.transformer.{clip(path)}",
    ),
    "Diffusers, second encoder": (SECOND, lambda path: f"text_encoder_2.{clip(path)}"),
    "flat, second encoder": (SECOND, lambda path: f"text_encoder_2.{flat(path)}"),
}


def stability(path: str) -> str:
    source = sources_of(Component.UNET, f"{path}.weight")[0]
    return source.key.removeprefix(STABILITY).removesuffix(".weight")


def flat(path: str) -> str:
    return path.removeprefix("text_model.")


def clip(path: str) -> str:
    """Return the path as in Transformers up to 5.5, which trainers wrote."""
    return path if path == "text_projection" else f"text_model.{flat(path)}"


@pytest.mark.parametrize(("name", "component", "path", "factor", "naming"), TABLE, ids=str)
def test_real_names_are_understood(
    name: str, component: Component, path: str, factor: Factor, naming: Naming
) -> None:
    found = split_name(name)
    assert found is not None
    assert found.factor is factor
    for size in SyntheticSize:
        assert ModuleNames(targets(size)).find(found.module) == FoundModule(component, path, naming)
    assert component_of(found.module) == (component, naming)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("size", SyntheticSize)
def test_every_module_is_reached_and_no_two_share_a_name(
    size: SyntheticSize, convention: str
) -> None:
    component, rename = CONVENTIONS[convention]
    names = ModuleNames(targets(size))
    paths = list(targets(size)[component])
    named = {rename(path): path for path in paths}
    assert len(named) == len(paths)
    for name, path in named.items():
        place = names.find(name)
        assert place is not None, name
        assert (place.component, place.path) == (component, path)


def test_full_sdxl_has_the_known_number_of_modules() -> None:
    # sd-scripts trains 722 modules of SDXL's UNet, 72 and 192 of its encoders: linear layers of
    # transformers, without the encoders' embeddings and projection.
    full = targets(FULL)
    linear = {
        component: [
            path
            for path, target in full[component].items()
            if len(target.weight) == 2
            and ("attentions" in path or "self_attn" in path or "mlp" in path)
        ]
        for component in LORA_COMPONENTS
    }
    assert {component: len(paths) for component, paths in linear.items()} == {
        UNET: 722,
        FIRST: 72,
        SECOND: 192,
    }


def test_numbers_of_blocks_agree_with_diffusers() -> None:
    """Diffusers renames sd-scripts' file by its own rules; both names must be the same module."""
    full, names = targets(FULL), ModuleNames(targets(FULL))
    layers = {
        f"lora_unet_{stability(path)}".replace(".", "_"): FoundModule(UNET, path, Naming.DIFFUSERS)
        for path, target in full[UNET].items()
        if "attentions" in path and len(target.weight) == 2
    }
    layers |= {
        f"lora_{short}_{clip(path)}".replace(".", "_"): FoundModule(part, path, Naming.DIFFUSERS)
        for short, part in (("te1", FIRST), ("te2", SECOND))
        for path in full[part]
        if path.endswith(("_proj", "fc1", "fc2"))
    }
    for name, place in layers.items():
        state = {f"{name}.lora_{half}.weight": torch.zeros(()) for half in ("down", "up")}
        config = type("Config", (), {"layers_per_block": 2})
        state = _maybe_map_sgm_blocks_to_diffusers(state, config)
        renamed, _ = _convert_non_diffusers_lora_to_diffusers(state)
        assert len(renamed) == 2
        for theirs in renamed:
            found = split_name(theirs)
            assert found is not None
            assert names.find(found.module) == place, theirs


@pytest.mark.parametrize(
    "name",
    [
        "lora_down.weight",
        "lora_unet_conv_in.lora_down",
        "lora_unet_conv_in.weight",
        "lora_unet_conv_in.lora_A.default.extra.weight",
        "",
    ],
)
def test_other_ends_of_names_are_not_taken_for_factors(name: str) -> None:
    assert split_name(name) is None


@pytest.mark.parametrize(
    "module",
    [
        "lora_unet_input_blocks_4_1_transformer_blocks_9_attn1_to_q",  # the tiny model has one
        "lora_unet_",
        "lora_te1_text_projection",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
        "text_encoder.down_blocks.1.attentions.0.norm",
        "",
    ],
)
def test_names_without_a_module_are_not_found(module: str) -> None:
    assert ModuleNames(targets()).find(module) is None


def test_signature_tells_models_apart() -> None:
    assert signature(targets(TINY)) != signature(targets(FULL))
    assert signature(dict(reversed(targets(TINY).items()))) == signature(targets(TINY))
    bigger = {part: dict(modules) for part, modules in targets(TINY).items()}
    bigger[FIRST][FIRST_QUERY] = bigger[FIRST][FIRST_QUERY]._replace(bias=None)
    assert signature(bigger) != signature(targets(TINY))
