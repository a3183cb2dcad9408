"""The summary and the plan of a LoRA file, and every refusal with its message."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest

from lpw_sdxl.errors import AddonError, LpwSdxlError, UnsupportedCheckpointError
from lpw_sdxl.lora.preflight import describe_file, examine
from lpw_sdxl.lora.targets import LORA_COMPONENTS
from tests.forge.checkpoint import SyntheticSize, tensor_shapes

from .making import CONV, KEY, MODULE, QUERY, Shapes, header_of, pair, targets

UNET, FIRST, SECOND = LORA_COMPONENTS
NOTE = "lora_adapter_metadata"
DIFFUSERS = f"unet.{QUERY}"
KOHYA_CONV = "lora_unet_input_blocks_4_0_in_layers_2"  # [64, 32, 3, 3] in the tiny model
KOHYA_NORM = "lora_unet_input_blocks_4_1_norm"
SERVED = "LoRA, LoCon, DoRA, LoHa, LoKr and full differences can be imported"


def peft(module: str = DIFFUSERS, rank: int = 4) -> Shapes:
    return pair(module, rank=rank, down="lora_A", up="lora_B")


def plan_shapes(shapes: Shapes, **keywords: object) -> dict[str, tuple[int, ...]]:
    plan = examine(header_of(shapes, **keywords), targets())
    return {f"{factor.path}/{factor.factor}": factor.shape for factor in plan.factors}


def noted(**entries: object) -> dict[str, str]:
    """Build Diffusers' note of PEFT's configuration of the UNet's adapter."""
    note = {"r": 4, "lora_alpha": 8, **entries}
    return {NOTE: json.dumps({f"unet.{key}": value for key, value in note.items()})}


KINDS: dict[str, tuple[Shapes, tuple[str, ...], dict[str, tuple[int, ...]]]] = {
    "LoRA": (
        pair(MODULE) | {f"{MODULE}.alpha": ()},
        ("LoRA",),
        {f"{QUERY}/lora_down": (4, 64), f"{QUERY}/lora_up": (64, 4)},
    ),
    "LoRA held as pointwise convolutions": (
        {f"{MODULE}.lora_down.weight": (4, 64, 1, 1), f"{MODULE}.lora_up.weight": (64, 4, 1, 1)},
        ("LoRA",),
        {f"{QUERY}/lora_down": (4, 64), f"{QUERY}/lora_up": (64, 4)},
    ),
    "LoCon": (
        {
            f"{KOHYA_CONV}.lora_down.weight": (4, 32, 3, 3),
            f"{KOHYA_CONV}.lora_up.weight": (64, 4, 1, 1),
        },
        ("LoCon",),
        {f"{CONV}/lora_down": (4, 32, 3, 3), f"{CONV}/lora_up": (64, 4, 1, 1)},
    ),
    "LoCon held as matrices": (
        {f"{KOHYA_CONV}.lora_down.weight": (4, 288), f"{KOHYA_CONV}.lora_up.weight": (64, 4)},
        ("LoCon",),
        {f"{CONV}/lora_down": (4, 32, 3, 3), f"{CONV}/lora_up": (64, 4, 1, 1)},
    ),
    "LoCon with a Tucker core": (
        {
            f"{KOHYA_CONV}.lora_down.weight": (4, 32, 1, 1),
            f"{KOHYA_CONV}.lora_mid.weight": (4, 4, 3, 3),
            f"{KOHYA_CONV}.lora_up.weight": (64, 4, 1, 1),
        },
        ("LoCon",),
        {
            f"{CONV}/lora_down": (4, 32, 1, 1),
            f"{CONV}/lora_mid": (4, 4, 3, 3),
            f"{CONV}/lora_up": (64, 4, 1, 1),
        },
    ),
    "LoHa": (
        {
            f"{MODULE}.hada_w{n}_{half}": shape
            for n in (1, 2)
            for half, shape in (("a", (64, 4)), ("b", (4, 64)))
        },
        ("LoHa",),
        {
            f"{QUERY}/hada_w{n}_{half}": shape
            for n in (1, 2)
            for half, shape in (("a", (64, 4)), ("b", (4, 64)))
        },
    ),
    "LoHa with Tucker cores": (
        {
            f"{KOHYA_CONV}.hada_{name}": shape
            for n in (1, 2)
            for name, shape in ((f"w{n}_a", (4, 64)), (f"w{n}_b", (4, 32)), (f"t{n}", (4, 4, 3, 3)))
        },
        ("LoHa",),
        {
            f"{CONV}/hada_{name}": shape
            for n in (1, 2)
            for name, shape in ((f"w{n}_a", (4, 64)), (f"w{n}_b", (4, 32)), (f"t{n}", (4, 4, 3, 3)))
        },
    ),
    "LoKr": (
        {
            f"{MODULE}.lokr_w1": (4, 8),
            f"{MODULE}.lokr_w2_a": (16, 3),
            f"{MODULE}.lokr_w2_b": (3, 8),
        },
        ("LoKr",),
        {f"{QUERY}/lokr_w1": (4, 8), f"{QUERY}/lokr_w2_a": (16, 3), f"{QUERY}/lokr_w2_b": (3, 8)},
    ),
    "LoKr of a convolution": (
        {
            f"{KOHYA_CONV}.lokr_w1_a": (4, 3),
            f"{KOHYA_CONV}.lokr_w1_b": (3, 4),
            f"{KOHYA_CONV}.lokr_w2_a": (16, 3),
            f"{KOHYA_CONV}.lokr_w2_b": (3, 72),
        },
        ("LoKr",),
        {
            f"{CONV}/lokr_w1_a": (4, 3),
            f"{CONV}/lokr_w1_b": (3, 4),
            f"{CONV}/lokr_w2_a": (16, 3),
            f"{CONV}/lokr_w2_b": (3, 72),
        },
    ),
    "LoKr with a Tucker core": (
        {
            f"{KOHYA_CONV}.lokr_w1": (4, 4),
            f"{KOHYA_CONV}.lokr_w2_a": (3, 16),
            f"{KOHYA_CONV}.lokr_w2_b": (3, 8),
            f"{KOHYA_CONV}.lokr_t2": (3, 3, 3, 3),
        },
        ("LoKr",),
        {
            f"{CONV}/lokr_w1": (4, 4),
            f"{CONV}/lokr_w2_a": (3, 16),
            f"{CONV}/lokr_w2_b": (3, 8),
            f"{CONV}/lokr_t2": (3, 3, 3, 3),
        },
    ),
    "DoRA by columns": (
        pair(MODULE) | {f"{MODULE}.dora_scale": (1, 64)},
        ("DoRA",),
        {
            f"{QUERY}/lora_down": (4, 64),
            f"{QUERY}/lora_up": (64, 4),
            f"{QUERY}/dora_scale": (1, 64),
        },
    ),
    "DoRA of PEFT": (
        {**peft(), f"{DIFFUSERS}.lora_magnitude_vector": (64,)},
        ("DoRA",),
        {
            f"{QUERY}/lora_down": (4, 64),
            f"{QUERY}/lora_up": (64, 4),
            f"{QUERY}/dora_scale": (64, 1),
        },
    ),
    "DoRA of PEFT's convolution": (
        {
            f"unet.{CONV}.lora_A.weight": (4, 32, 3, 3),
            f"unet.{CONV}.lora_B.weight": (64, 4, 1, 1),
            f"unet.{CONV}.lora_magnitude_vector.weight": (1, 64, 1, 1),
        },
        ("LoCon", "DoRA"),
        {
            f"{CONV}/lora_down": (4, 32, 3, 3),
            f"{CONV}/lora_up": (64, 4, 1, 1),
            f"{CONV}/dora_scale": (64, 1, 1, 1),
        },
    ),
    "full differences": (
        {
            f"{KOHYA_NORM}.w_norm": (64,),
            f"{KOHYA_NORM}.b_norm": (64,),
            f"{KOHYA_CONV}.diff": (64, 32, 3, 3),
            "lora_unet_out_2.diff_b": (4,),
        },
        ("full",),
        {
            "down_blocks.1.attentions.0.norm/diff": (64,),
            "down_blocks.1.attentions.0.norm/diff_b": (64,),
            f"{CONV}/diff": (64, 32, 3, 3),
            "conv_out/diff_b": (4,),
        },
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_told_and_brought_into_its_canonical_shapes(name: str) -> None:
    shapes, kinds, canonical = KINDS[name]
    plan = examine(header_of(shapes), targets())
    assert plan.summary.kinds == kinds
    assert plan_shapes(shapes) == canonical
    assert describe_file(header_of(shapes)).kinds in (kinds, ("LoRA",))


def test_rank_is_the_alpha_of_a_file_that_tells_none() -> None:
    shapes, _, _ = KINDS["LoKr"]
    (alpha,) = examine(header_of(shapes), targets()).alphas
    assert (alpha.value, alpha.source, alpha.name) == (3.0, None, f"unet/{QUERY}/alpha")


def test_alpha_of_the_file_is_read_from_it() -> None:
    header = header_of(pair(MODULE) | {f"{MODULE}.alpha": ()})
    (alpha,) = examine(header, targets()).alphas
    assert alpha.value is None
    assert alpha.source is header.tensors[f"{MODULE}.alpha"]


@pytest.mark.parametrize(
    "shapes",
    [
        {f"{MODULE}.lokr_w1": (4, 8), f"{MODULE}.lokr_w2": (16, 8), f"{MODULE}.alpha": ()},
        {f"{MODULE}.diff": (64, 64), f"{MODULE}.alpha": (1,)},
    ],
    ids=["LoKr of two whole halves", "full"],
)
def test_alpha_without_a_scale_is_left_out_and_told(shapes: Shapes) -> None:
    plan = examine(header_of(shapes), targets())
    assert plan.alphas == ()
    assert plan.ignored == {"alphas of modules whose formula has no scale": 1}


def test_summary_says_what_the_file_and_its_notes_tell() -> None:
    second = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"
    shapes = {
        **pair(MODULE, rank=8),
        **pair(second),
        "bundle_emb.mine.clip_l": (2, 32),
        "bundle_emb.mine.clip_g": (2, 64),
        "lora_te1_text_projection.lora_down.weight": (4, 32),
    }
    metadata = {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_sd_model_name": "pony.safetensors",
        "ss_network_alpha": "4.0",
        "modelspec.title": "My\x1b[31m LoRA\n",
        "modelspec.trigger_phrase": "mytoken, my style , mytoken,,",
    }
    header = header_of(shapes, metadata=metadata)
    plan = examine(header, targets())
    assert plan.summary.naming == "kohya"
    assert plan.summary.modules == {UNET: 1, SECOND: 1}
    assert plan.summary.ranks == (4, 8)
    assert plan.summary.notes.base_model == "sdxl_base_v1-0 (pony.safetensors)"
    assert plan.summary.notes.title == "My[31m LoRA"
    assert plan.summary.notes.trained_words == ("mytoken", "my style")
    assert 4.0 in plan.summary.alphas
    assert sorted(plan.ignored.values()) == [1, 2]
    described = describe_file(header)
    assert described.modules == plan.summary.modules
    assert (described.kinds, described.ranks) == (("LoRA",), (4, 8))
    assert described.alphas == (4.0,)


@pytest.mark.parametrize(
    ("entries", "alpha"),
    [
        ({}, 8.0),
        ({"use_rslora": True}, 8.0 * math.sqrt(4)),
        ({"alpha_pattern": {"attn1.to_q": 3}}, 3.0),
        ({"alpha_pattern": {"tn1.to_q": 3}}, 8.0),
        ({"alpha_pattern": {f"^{QUERY}": 3}}, 3.0),
        ({"alpha_pattern": {"^attn1.to_q": 3}}, 8.0),
        ({"r": 16, "rank_pattern": {QUERY: 4}}, 8.0),
        ({"r": 16, "rank_pattern": {"to_q": 4}, "use_rslora": True}, 16.0),
    ],
    ids=str,
)
def test_peft_configuration_becomes_alpha(entries: dict[str, object], alpha: float) -> None:
    plan = examine(header_of(peft(), metadata=noted(**entries)), targets())
    assert [found.value for found in plan.alphas] == [alpha]
    assert plan.summary.alphas == (alpha,)


def test_peft_configuration_of_a_unet_alone_has_no_prefix() -> None:
    metadata = {NOTE: json.dumps({"r": 4, "lora_alpha": 2})}
    plan = examine(header_of(peft(QUERY), metadata=metadata), targets())
    assert [found.value for found in plan.alphas] == [2.0]


def test_peft_patterns_fit_encoders_with_and_without_their_wrapper() -> None:
    module = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    note = {
        "text_encoder.r": 4,
        "text_encoder.lora_alpha": 1,
        "text_encoder.alpha_pattern": {"text_model.encoder.layers.0.self_attn.q_proj": 6},
    }
    shapes = pair(module, size=32, down="lora_A", up="lora_B")
    plan = examine(header_of(shapes, metadata={NOTE: json.dumps(note)}), targets())
    assert [found.value for found in plan.alphas] == [6.0]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({NOTE: "{"}, f"some.safetensors: its note {NOTE} is not the JSON it should be."),
        ({NOTE: "[" * 99999}, f"some.safetensors: its note {NOTE} is not the JSON it should be."),
        ({NOTE: "[]"}, f"some.safetensors: its note {NOTE} is not a JSON object."),
        (
            noted(r=8),
            f"some.safetensors: the metadata says rank 8 for {QUERY} and its tensors have 4; both "
            "must agree.",
        ),
        (
            noted(use_dora=True),
            f"some.safetensors: the metadata says DoRA and {QUERY} has no lora_magnitude_vector.",
        ),
        (
            noted(init_lora_weights="pissa_niter_4"),
            "some.safetensors was trained with 'pissa_niter_4', which changes the base model; "
            "convert it to an ordinary LoRA with PEFT first.",
        ),
        (
            noted(peft_type="OFT"),
            f"some.safetensors: its note {NOTE} is of PEFT's 'OFT', not of LORA.",
        ),
        (
            noted(alpha_pattern={"(a+)+$": 3}),
            f"some.safetensors: its note {NOTE} has alpha_pattern '(a+)+$', which can't be right.",
        ),
        (
            noted(lora_alpha=float("nan")),
            f"some.safetensors: its note {NOTE} has lora_alpha nan, which can't be right.",
        ),
        (
            noted(lora_alpha=None),
            f"some.safetensors: its note {NOTE} has lora_alpha None, which can't be right.",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_wrong_peft_configurations_are_refused(metadata: Mapping[str, str], message: str) -> None:
    with pytest.raises(AddonError) as caught:
        examine(header_of(peft(), metadata=metadata), targets())
    assert str(caught.value) == message


def test_alpha_of_a_tensor_goes_before_that_of_the_configuration() -> None:
    header = header_of({**peft(), f"{DIFFUSERS}.alpha": ()}, metadata=noted())
    (alpha,) = examine(header, targets()).alphas
    assert alpha.source is header.tensors[f"{DIFFUSERS}.alpha"]


DAMAGED: dict[str, tuple[Shapes, str]] = {
    "down without up": (
        {f"{MODULE}.lora_down.weight": (4, 64)},
        f"some.safetensors: tensor {MODULE}.lora_down.weight has no lora_up beside it; both are "
        "needed.",
    ),
    "nothing but alphas": (
        {f"{MODULE}.alpha": (), f"{KOHYA_CONV}.alpha": ()},
        "some.safetensors changes no module; a LoRA for SDXL is needed.",
    ),
    "scale alone": (
        {f"{MODULE}.dora_scale": (64, 1)},
        f"some.safetensors: tensor {MODULE}.dora_scale stands alone; the factors that it belongs "
        "to are needed.",
    ),
    "half of LoHa": (
        {f"{MODULE}.hada_w1_a": (64, 4), f"{MODULE}.hada_w1_b": (4, 64)},
        f"some.safetensors: tensor {MODULE}.hada_w1_a has no hada_w2_a beside it; both are needed.",
    ),
    "one Tucker core of two": (
        {
            f"{KOHYA_CONV}.hada_{name}": shape
            for name, shape in (
                ("w1_a", (4, 64)),
                ("w1_b", (4, 32)),
                ("t1", (4, 4, 3, 3)),
                ("w2_a", (64, 4)),
                ("w2_b", (4, 288)),
            )
        },
        f"some.safetensors: tensor {KOHYA_CONV}.hada_t1 has no hada_t2 beside it; both are needed.",
    ),
    "LoKr without its second half": (
        {f"{MODULE}.lokr_w1": (4, 8)},
        f"some.safetensors: tensor {MODULE}.lokr_w1 has no lokr_w2 beside it; both are needed.",
    ),
    "LoKr with a half in two forms": (
        {f"{MODULE}.lokr_w1": (4, 8), f"{MODULE}.lokr_w2": (16, 8), f"{MODULE}.lokr_w2_a": (16, 3)},
        f"some.safetensors: tensor {MODULE}.lokr_w2_a: its module has the same part in another "
        "form.",
    ),
    "LoKr with a core beside a whole half": (
        {f"{MODULE}.lokr_w1": (4, 8), f"{MODULE}.lokr_w2": (16, 8), f"{MODULE}.lokr_t2": (3, 3)},
        f"some.safetensors: tensor {MODULE}.lokr_t2 has no meaning beside the others.",
    ),
    "LoKr that doesn't divide": (
        {f"{MODULE}.lokr_w1": (5, 8), f"{MODULE}.lokr_w2": (16, 8)},
        f"some.safetensors: tensor {MODULE}.lokr_w1 has the shape [5, 8]; divisors of its module's "
        "[64, 64] would fit.",
    ),
    "LoKr of two ranks": (
        {
            f"{MODULE}.lokr_w1_a": (4, 2),
            f"{MODULE}.lokr_w1_b": (2, 8),
            f"{MODULE}.lokr_w2_a": (16, 3),
            f"{MODULE}.lokr_w2_b": (3, 8),
        },
        f"some.safetensors: tensor {MODULE}.lokr_w2_b has the shape [3, 8]; the first half's rank "
        "2 would be right.",
    ),
    "two kinds": (
        pair(MODULE) | {f"{MODULE}.diff": (64, 64)},
        f"some.safetensors: tensor {MODULE}.lora_down.weight: its module is changed as LoRA and as "
        "full; one of them is needed.",
    ),
    "full with a scale": (
        {f"{MODULE}.diff": (64, 64), f"{MODULE}.dora_scale": (64, 1)},
        f"some.safetensors: tensor {MODULE}.dora_scale has no meaning beside full.",
    ),
    "the same part twice": (
        {**pair(MODULE), **peft()},
        f"some.safetensors: tensors {MODULE}.lora_down.weight and {DIFFUSERS}.lora_A.weight are "
        "the same part of one module; one of them is needed.",
    ),
    "two adapters": (
        {
            **pair(DIFFUSERS, down="lora_A.one", up="lora_B.one"),
            **pair(DIFFUSERS, down="lora_A.two", up="lora_B.two"),
        },
        f"some.safetensors: tensors {DIFFUSERS}.lora_A.one.weight and "
        f"{DIFFUSERS}.lora_A.two.weight are the same part of one module; one of them is needed.",
    ),
    "ranks that differ": (
        {f"{MODULE}.lora_down.weight": (4, 64), f"{MODULE}.lora_up.weight": (64, 8)},
        f"some.safetensors: tensor {MODULE}.lora_up.weight has the shape [64, 8]; [64, 4] would "
        "fit its module's [64, 64].",
    ),
    "no rank": (
        {f"{MODULE}.lora_down.weight": (0, 64), f"{MODULE}.lora_up.weight": (64, 0)},
        f"some.safetensors: tensor {MODULE}.lora_down.weight has the shape [0, 64]; it needs two "
        "dimensions and more, none of them 0.",
    ),
    "another size": (
        pair(MODULE, size=128),
        f"some.safetensors: tensor {MODULE}.lora_down.weight has the shape [4, 128]; [4, 64] would "
        "fit its module's [64, 64].",
    ),
    "a kernel of another size": (
        {
            f"{KOHYA_CONV}.lora_down.weight": (4, 32, 1, 1),
            f"{KOHYA_CONV}.lora_up.weight": (64, 4, 1, 1),
        },
        f"some.safetensors: tensor {KOHYA_CONV}.lora_down.weight has the shape [4, 32, 1, 1]; "
        "[4, 32, 3, 3] would fit its module's [64, 32, 3, 3].",
    ),
    "factors of a norm": (
        {f"{KOHYA_NORM}.lora_down.weight": (4, 1), f"{KOHYA_NORM}.lora_up.weight": (64, 4)},
        f"some.safetensors: tensor {KOHYA_NORM}.lora_down.weight has the shape [4, 1]; its module "
        "has a vector [64], for a diff.",
    ),
    "a bias that isn't there": (
        pair(MODULE) | {f"{MODULE}.diff_b": (64,)},
        f"some.safetensors: tensor {MODULE}.diff_b has the shape [64]; its module has no bias.",
    ),
    "an alpha of many numbers": (
        pair(MODULE) | {f"{MODULE}.alpha": (4,)},
        f"some.safetensors: tensor {MODULE}.alpha has the shape [4]; one number would be right.",
    ),
    "a magnitude of another size": (
        {**peft(), f"{DIFFUSERS}.lora_magnitude_vector": (1, 64)},
        f"some.safetensors: tensor {DIFFUSERS}.lora_magnitude_vector has the shape [1, 64]; [64] "
        "would be right.",
    ),
    "an unknown module": (
        pair(MODULE) | pair("lora_unet_input_blocks_4_1_transformer_blocks_7_attn1_to_q"),
        "some.safetensors: tensor lora_unet_input_blocks_4_1_transformer_blocks_7_attn1_to_q"
        ".lora_down.weight belongs to no module of SDXL's UNet or text encoders in any naming that "
        "we know; --ignore-unknown leaves out and lists such tensors.",
    ),
    "an unknown tensor of a known module": (
        {**pair(MODULE), f"{MODULE}.some\x1bthing": (1,)},
        f"some.safetensors: tensor {MODULE}.something belongs to no module of SDXL's UNet or text "
        "encoders in any naming that we know; --ignore-unknown leaves out and lists such tensors.",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_does_not_fit_is_refused_by_name(name: str) -> None:
    shapes, message = DAMAGED[name]
    with pytest.raises(AddonError) as caught:
        examine(header_of(shapes), targets())
    assert str(caught.value) == message


@pytest.mark.parametrize("factor", ["lora_up.weight", "alpha"])
def test_numbers_that_need_a_table_are_refused(factor: str) -> None:
    shapes = pair(MODULE) | {f"{MODULE}.alpha": ()}
    header = header_of(shapes, dtypes={f"{MODULE}.{factor}": "U8"})
    with pytest.raises(AddonError, match=rf"{MODULE}.{factor} has the dtype U8; F16, .* can be im"):
        examine(header, targets())


NEEDED = "a LoRA for SDXL is needed"
FOREIGN: dict[str, tuple[Shapes, str]] = {
    "SD 1.x by its text": (
        {
            "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (
                4,
                768,
            )
        },
        f"a LoRA for Stable Diffusion 1.x; {NEEDED}.",
    ),
    "SD 2.x by its text": (
        {"unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 1024)},
        f"a LoRA for Stable Diffusion 2.x; {NEEDED}.",
    ),
    "the refiner by its text": (
        {"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_v.hada_w1_b": (4, 1280)},
        f"a LoRA for the SDXL refiner; {NEEDED}.",
    ),
    "SD 1.x by its blocks": (
        pair("lora_unet_down_blocks_0_attentions_0_proj_in"),
        f"a LoRA for Stable Diffusion 1.x or 2.x; {NEEDED}.",
    ),
    "SD 1.x by its only encoder": (
        pair("lora_te_text_model_encoder_layers_0_self_attn_q_proj", size=32),
        f"a LoRA for Stable Diffusion 1.x or 2.x; {NEEDED}.",
    ),
    "SD 3": (
        pair("lora_unet_joint_blocks_0_x_block_attn_proj"),
        f"a LoRA for Stable Diffusion 3; {NEEDED}.",
    ),
    "Flux": (
        pair("lora_unet_double_blocks_0_img_attn_qkv"),
        f"a LoRA for Flux; {NEEDED}.",
    ),
    "Flux of Diffusers": (
        pair("transformer.single_transformer_blocks.0.attn.to_q", down="lora_A", up="lora_B"),
        f"a LoRA for Flux; {NEEDED}.",
    ),
    "a transformer": (
        pair("transformer.transformer_blocks.0.attn.to_q", down="lora_A", up="lora_B"),
        f"a LoRA for Flux, Stable Diffusion 3 or another transformer; {NEEDED}.",
    ),
    "Wan": (
        pair("diffusion_model.blocks.0.cross_attn.k", down="lora_A", up="lora_B"),
        f"a LoRA for Wan or another video model; {NEEDED}.",
    ),
    "Cascade": (
        pair("lora_prior_unet_down_blocks_0_2_attention_to_q"),
        f"a LoRA for Stable Cascade; {NEEDED}.",
    ),
    "a VAE": (pair("lora_vae_decoder_mid_block_attentions_0_to_q"), f"a LoRA for a VAE; {NEEDED}."),
    "AnimateDiff": (
        pair(
            "down_blocks.0.motion_modules.0.temporal_transformer.proj_in",
            down="lora_A",
            up="lora_B",
        ),
        f"an AnimateDiff motion LoRA; {NEEDED}.",
    ),
    "LLLite": (
        {"lllite_unet_input_blocks_4_1_attn1_to_q.down.0.weight": (4, 64)},
        f"a ControlNet; {NEEDED}.",
    ),
    "an IP-Adapter's": (
        {"0.to_q_lora.down.weight": (4, 64), "0.to_q_lora.up.weight": (64, 4)},
        f"an IP-Adapter's LoRA; {NEEDED}.",
    ),
    "a ControlNet's": (
        {"lora_controlnet": (1,), **pair("input_blocks.4.1.proj_in", down="up", up="down")},
        f"a ControlNet; {NEEDED}.",
    ),
    "a hypernetwork": ({"768.0.linear.0.weight": (768, 768)}, f"a hypernetwork; {NEEDED}."),
    "an embedding": (
        {"clip_l": (2, 768), "clip_g": (2, 1280)},
        "a textual inversion embedding; import it with `embedding`.",
    ),
    "a checkpoint": (
        tensor_shapes(SyntheticSize.TINY),
        "an SDXL checkpoint; import it with `checkpoint`.",
    ),
    "a VAE alone": ({"decoder.conv_in.weight": (8, 4, 3, 3)}, f"a VAE alone; {NEEDED}."),
    "nothing": ({}, f"no LoRA that we know; {NEEDED}."),
    "embeddings only": ({"bundle_emb.mine.clip_l": (2, 32)}, f"no LoRA that we know; {NEEDED}."),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_refused_by_what_they_are(name: str) -> None:
    shapes, message = FOREIGN[name]
    with pytest.raises(UnsupportedCheckpointError) as caught:
        examine(header_of(shapes), targets())
    assert str(caught.value) == f"some.safetensors is {message}"


OTHER_KINDS = {
    "oft_blocks": "OFT or BOFT, which turns the weights and adds nothing to them",
    "oft_diag": "OFT or BOFT, which turns the weights and adds nothing to them",
    "a1.weight": "GLoRA, which few tools read",
    "on_input": "IA3, which few tools read",
    "lora_A.bias": "a LoRA with biases of its own",
    "bias_indices": "a LoRA with sparse biases",
    "lokr_t1": "LoKr with a Tucker core in its first half, which no tool writes",
    "scale": "a module with a scale beside its alpha, which tools read differently",
    "scalar": "a module with a scale beside its alpha, which tools read differently",
    "reshape_weight": "a change that replaces weights instead of adding to them",
    "lora_embedding_A": "PEFT's LoRA of an embedding table",
}


@pytest.mark.parametrize("beside", [True, False], ids=["beside a LoRA", "alone"])
@pytest.mark.parametrize("ending", OTHER_KINDS)
def test_other_kinds_are_refused_with_the_reason(ending: str, beside: bool) -> None:
    shapes = {f"{MODULE}.{ending}": (4, 4)} | (pair(MODULE) if beside else {})
    with pytest.raises(UnsupportedCheckpointError) as caught:
        examine(header_of(shapes), targets())
    assert str(caught.value) == (
        f"some.safetensors: tensor {MODULE}.{ending} belongs to {OTHER_KINDS[ending]}; {SERVED}."
    )


def test_openclip_names_of_an_encoder_are_refused_with_the_reason() -> None:
    module = "lora_te2_transformer_resblocks_0_attn_in_proj"
    with pytest.raises(UnsupportedCheckpointError, match=r"OpenCLIP's names, which hold three"):
        examine(header_of(pair(module)), targets())


ENCODER = pair("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", size=32)


@pytest.mark.parametrize(
    ("shapes", "stated", "title"),
    [
        (ENCODER, "stable-diffusion-v1/lora", "a LoRA for Stable Diffusion 1.x"),
        (ENCODER, "sd3-m", "a LoRA for Stable Diffusion 3"),
        (ENCODER, "stable-diffusion-xl-v1-base/lora", None),
        (ENCODER, "sdxl_base_v1-0", None),
        # The UNet's part is better evidence than a note that was copied from another file.
        (pair(MODULE), "stable-diffusion-v1/lora", None),
        (pair(MODULE), "kolors/lora", "a LoRA for Kolors"),
        (
            pair(MODULE),
            "segmind/SSD-1B",
            "a LoRA for a pruned SDXL (SSD-1B or Segmind Vega)",
        ),
    ],
    ids=str,
)
def test_metadata_tells_the_base_where_tensors_cannot(
    shapes: Shapes, stated: str, title: str | None
) -> None:
    header = header_of(shapes, metadata={"modelspec.architecture": stated})
    if title is None:
        examine(header, targets())
        return
    with pytest.raises(UnsupportedCheckpointError) as caught:
        examine(header, targets())
    assert str(caught.value) == (
        f"some.safetensors is {title} (its metadata says {stated}); {NEEDED}."
    )


def test_mutated_headers_are_refused_in_a_sentence_or_fit() -> None:
    """Names, shapes and dtypes are changed at random; only errors of ours may be raised."""
    whole: dict[str, tuple[int, ...]] = {}
    for number, (shapes, _, _) in enumerate(KINDS.values()):
        # Each in a module of its own if they would collide.
        whole |= {
            name.replace("attn1", f"attn{1 + number % 2}"): shape for name, shape in shapes.items()
        }
    dice, messages = random.Random(5), []
    for _ in range(400):
        entries = list(dice.choice([KINDS[name][0] for name in KINDS] + [whole]).items())
        dtypes = {}
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(entries))
            name, shape = entries[at]
            change = dice.randrange(5)
            if change == 0:
                shape = tuple(dice.choice((0, 1, 3, size)) for size in shape)
            elif change == 1:
                shape = (*shape[: dice.randint(0, len(shape))], dice.randint(0, 3))
            elif change == 2 and name:
                cut = dice.randrange(len(name))
                name = name[:cut] + dice.choice(("", "\n", ".", "_", "0")) + name[cut + 1 :]
            elif change == 3:
                name = name.rpartition(".")[0] + dice.choice((".alpha", ".diff", ".lokr_t2", ""))
            else:
                dtypes[name] = dice.choice(("I64", "U8", "BOOL", "F64"))
            entries[at] = name, shape
        try:
            examine(header_of(dict(entries), dtypes=dtypes), targets())
        except LpwSdxlError as error:
            messages.append(str(error))
    assert len(messages) > 300
    assert all(message.startswith("some.safetensors") for message in messages)
    assert not any("\n" in message for message in messages)


def test_full_sdxl_lora_of_8000_tensors_is_examined_in_well_under_a_second() -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    for component, modules in targets(SyntheticSize.FULL).items():
        for path, target in modules.items():
            module = f"{component.value}.{path}"
            if len(target.weight) == 1:
                shapes |= {f"{module}.w_norm": target.weight, f"{module}.b_norm": target.weight}
                continue
            out, rest = target.weight[0], target.weight[1:]
            for n in (1, 2):
                shapes |= {
                    f"{module}.hada_w{n}_a": (out, 8),
                    f"{module}.hada_w{n}_b": (8, math.prod(rest)),
                }
            shapes |= {f"{module}.alpha": (), f"{module}.dora_scale": (out, *(1 for _ in rest))}
    assert len(shapes) > 7000
    header = header_of(shapes)
    times = []
    for _ in range(3):
        began = time.process_time()
        plan = examine(header, targets(SyntheticSize.FULL))
        times.append(time.process_time() - began)
    assert len(plan.factors) + len(plan.alphas) == len(shapes)
    assert min(times) < 1.0


def test_sdxl_lora_fits_sdxl_and_not_the_tiny_model() -> None:
    key = f"unet.{KEY}"
    shapes = {f"{key}.lora_A.weight": (4, 2048), f"{key}.lora_B.weight": (640, 4)}
    examine(header_of(shapes), targets(SyntheticSize.FULL))
    with pytest.raises(AddonError, match=r"\[4, 2048\]; \[4, 96\] would fit"):
        examine(header_of(shapes), targets())


@pytest.mark.processes
def test_preflight_imports_nothing_heavy() -> None:
    code = (
        "import sys, lpw_sdxl.lora.preflight, lpw_sdxl.lora.targets\n"
        "print(sorted({'torch', 'bentoml', 'diffusers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
