"""Extra tensors of a LoRA file: applied, left out and listed, or refused; none is lost unseen."""

from __future__ import annotations

import random

import pytest

from lpw_sdxl.errors import AddonError, UnsupportedCheckpointError
from lpw_sdxl.lora.left_out import (
    LONE_ALPHAS,
    OTHER_FOREIGN,
    OTHER_UNKNOWN,
    harmless_reason,
    is_foreign,
)
from lpw_sdxl.lora.plan import LoraChoices, LoraPlan
from lpw_sdxl.lora.preflight import examine

from .making import MODULE, Shapes, header_of, pair, targets

IGNORE = LoraChoices(ignore_unknown=True)
BASE = pair(MODULE) | {f"{MODULE}.alpha": ()}
BLOCK = "transformer_blocks_0_attn1_to_k"

HARMLESS = [
    *("v_pred", "v_prediction", "ztsnr", "zsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max"),
    *("global_step", "step", "epoch", "iteration", "logvar", "scale_factor"),
    *(f"model_sampling.{name}" for name in ("sigmas", "sigma_min", "log_sigmas")),
    *("embedding_manager.string_to_param.*", "embedding_manager.embeddings.0"),
    *("discriminator.blocks.0.self_attn.weight", "discriminator.head.scale"),
    *("optimizer.state.0.exp_avg", "lr_scheduler.last_lr", "loops.epoch", "callbacks.a.b"),
    *("bundle_emb.mine.clip_l", "bundle_emb.mine.clip_g"),
    "lora_te1_text_projection.lora_down.weight",
]
"""Known to change nothing."""
FOREIGN = [
    *("noise_offset", "snr_gamma", "mask", "hash", "padding", "__format__", "0", "ema_decay"),
    *("training.seed", "ss.epoch", "info.version.0", "my tensor", "\x1b[31m", "logit_scale"),
    *(f"extra.{number}.weight" for number in range(35)),
    *(f"statistics.{name}" for name in ("mean", "std", "count", "min", "max", "a", "b", "c", "d")),
    *("aesthetic_head.weight", "aesthetic_head.bias", "reward.layers.0.weight", "router.gate"),
    *("t5.something.alpha", "nothing.alpha", "alpha"),
]
"""Names of no network and of no LoRA."""
LOST = [
    *(f"lora_unet_input_blocks_{n}_1_{BLOCK}.lora_down.weight" for n in range(20, 40)),
    *(f"lora_te{n}_text_model_encoder_layers_99_mlp_fc1.lora_up.weight" for n in (1, 2)),
    *(f"unet.down_blocks.{n}.attentions.0.proj_in.lora_A.weight" for n in range(7, 17)),
    *(f"text_encoder{n}.text_model.encoder.layers.99.mlp.fc1.lora_B.weight" for n in ("", "_2")),
    *(f"diffusion_model_output_blocks_{n}_9_proj_in.lora_up.weight" for n in range(5)),
    *(f"diffusion_model.middle_block.{n}.proj_in.lora_A.weight" for n in range(7, 17)),
    *(f"lycoris_unet_mid_block_attentions_{n}_proj_in.hada_w1_a" for n in range(5, 10)),
    *(f"{MODULE}.{name}" for name in ("gate", "lora_gate.weight", "weight", "lora_down", "x")),
    *(f"{name}.weight" for name in ("conv_in", "conv_out", "time_embedding.linear_1", "out.2")),
    *(f"{name}.0.x.weight" for name in ("down_blocks", "up_blocks", "input_blocks", "mid_block")),
    *("foo.lora_down.weight", "foo.bar.lora_A.weight", "x.lokr_w1", "y.dora_scale", "z.diff"),
    *("lora_version", "a.lora_extra", "text_model.encoder.layers.0.x", "base_model.model.foo"),
    *("clip_l.foo", "clip_g.transformer.bar", "text_encoders.clip_l.baz", "lora_unet_x.alpha"),
    *(f"label_emb.0.{n}.weight" for n in range(3)),
]
"""Under a network's own names, or a LoRA's factors, with no place."""
LONE = [f"lora_unet_input_blocks_{n}_1_{BLOCK}.alpha" for n in (4, 5, 7, 8)] + [
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha",
    "unet.up_blocks.0.attentions.0.proj_in.alpha",
    "diffusion_model_output_blocks_1_1_proj_in.alpha",
]
"""Alphas of the model's own modules, without factors."""
APPLIED: list[Shapes] = [
    pair(name, size)
    for name, size in (
        ("lora_unet_output_blocks_0_1_proj_in", 64),
        ("diffusion_model_output_blocks_1_1_proj_in", 64),
        ("lycoris_unet_output_blocks_2_1_proj_in", 64),
        ("unet.up_blocks.0.attentions.0.proj_out", 64),
        ("diffusion_model.output_blocks.1.1.proj_out", 64),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 32),
        ("clip_g.transformer.text_model.encoder.layers.0.self_attn.q_proj", 64),
    )
]
UNSERVED = ["scale", "scalar", "oft_blocks", "bias_indices", "set_weight", "lora_A.bias"]


def test_the_corpus_has_two_hundred_keys_of_all_kinds() -> None:
    names = [*HARMLESS, *FOREIGN, *LOST, *LONE, *(name for more in APPLIED for name in more)]
    assert len(set(names)) == len(names)
    assert len(names + UNSERVED) >= 200


def plan_with(*names: str, choices: LoraChoices = LoraChoices()) -> LoraPlan:  # noqa: B008
    return examine(header_of(BASE | dict.fromkeys(names, (1,))), targets(), choices)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_known_to_be_harmless_is_left_out_with_its_reason(name: str) -> None:
    reason = harmless_reason(name)
    assert reason is not None
    assert plan_with(name).ignored == {reason: 1}
    assert plan_with(name).factors == plan_with().factors


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_of_no_network_is_left_out_by_its_name(name: str) -> None:
    assert is_foreign(name)
    ((reason, count),) = plan_with(name).ignored.items()
    assert (count, reason.endswith(", of none of SDXL's networks")) == (1, True)
    assert reason.isprintable()
    assert plan_with(name).factors == plan_with().factors


@pytest.mark.parametrize("name", LOST)
def test_what_has_a_networks_name_and_no_place_is_refused_unless_it_is_asked_for(name: str) -> None:
    assert not is_foreign(name)
    with pytest.raises(AddonError) as refused:
        plan_with(name)
    assert str(refused.value) == (
        f"some.safetensors: tensor {name} belongs to no module of SDXL's UNet or text encoders in "
        "any naming that we know; --ignore-unknown leaves out and lists such tensors."
    )
    plan = plan_with(name, choices=IGNORE)
    assert plan.ignored == {f"{name}, by --ignore-unknown": 1}
    assert plan.factors == plan_with().factors


@pytest.mark.parametrize("name", LONE)
def test_an_alpha_without_factors_is_left_out(name: str) -> None:
    plan = plan_with(name)
    assert plan.ignored == {LONE_ALPHAS: 1}
    assert (plan.factors, plan.alphas) == (plan_with().factors, plan_with().alphas)


@pytest.mark.parametrize("more", APPLIED, ids=lambda more: next(iter(more)))
def test_what_has_a_place_is_applied(more: Shapes) -> None:
    plan = examine(header_of(BASE | more), targets())
    assert plan.ignored == {}
    assert len(plan.factors) == len(plan_with().factors) + 2


@pytest.mark.parametrize("choices", [LoraChoices(), IGNORE], ids=["plain", "ignoring"])
@pytest.mark.parametrize("ending", UNSERVED)
def test_another_form_is_refused_even_if_unknown_tensors_are_left_out(
    ending: str, choices: LoraChoices
) -> None:
    with pytest.raises(UnsupportedCheckpointError, match="belongs to"):
        plan_with(f"{MODULE}.{ending}", choices=choices)


@pytest.mark.parametrize("name", ["extra.scale", "statistics.set_weight", "foo.on_input"])
def test_a_foreign_tensor_is_of_no_form(name: str) -> None:
    assert len(plan_with(name).ignored) == 1


def test_all_together_are_what_each_is_alone() -> None:
    dice = random.Random(3)
    for _ in range(20):
        names = dice.sample(HARMLESS + FOREIGN + LONE, 12)
        lost = dice.sample(LOST, 5)
        plan = plan_with(*names, *lost, choices=IGNORE)
        assert sum(plan.ignored.values()) == len(names) + len(lost)
        assert plan.factors == plan_with().factors
        with pytest.raises(AddonError, match="belongs to no module"):
            plan_with(*names, *lost)


def test_very_many_are_counted_and_not_listed() -> None:
    foreign = [f"extra_{number}" for number in range(300)]
    lost = [f"lora_unet_{number}.weight" for number in range(300)]
    plan = plan_with(*foreign, *lost, choices=IGNORE)
    assert len(plan.ignored) < 60
    assert plan.ignored[OTHER_FOREIGN] > 200
    assert plan.ignored[OTHER_UNKNOWN] > 200
    assert sum(plan.ignored.values()) == 600


def test_a_file_of_which_nothing_is_left_is_refused() -> None:
    shapes = pair("lora_unet_input_blocks_99_1_proj_in") | {"v_pred": ()}
    with pytest.raises(AddonError, match="changes no module; a LoRA for SDXL is needed"):
        examine(header_of(shapes), targets(), IGNORE)
