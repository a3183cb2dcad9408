"""The plan of a conversion: everything used once, everything else refused by name."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lpw_sdxl.checkpoint.architecture import read_architecture
from lpw_sdxl.checkpoint.configs import component_configs
from lpw_sdxl.checkpoint.inspect import recognise
from lpw_sdxl.checkpoint.keys import Transform
from lpw_sdxl.checkpoint.kinds import POSITION_IDS, CheckpointKind
from lpw_sdxl.checkpoint.layout import standardise
from lpw_sdxl.checkpoint.parameters import parameters_of
from lpw_sdxl.checkpoint.plan import NO_PART, Targets, plan_conversion
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.header import TensorInfo
from lpw_sdxl.weights.text import clean_text
from tests.forge.checkpoint import SyntheticSize, tensor_shapes
from tests.forge.extra_tensors import draw_extra_tensors

from .conftest import Shapes, header_of


def _targets(size: SyntheticSize) -> Targets:
    configs = component_configs(size.value, ImageSize(1024, 1024), CheckpointDtype.FLOAT16)
    return parameter_shapes(configs)


@pytest.fixture(scope="module")
def tiny_targets() -> Targets:
    return _targets(SyntheticSize.TINY)


def test_full_size_plan_uses_all_2514_tensors():
    shapes = tensor_shapes(SyntheticSize.FULL)
    header = header_of(shapes)
    assert len(shapes) == 2514
    assert 6.93e9 < header.file_size < 6.94e9
    plan = plan_conversion(header, _targets(SyntheticSize.FULL))
    plans = plan.tensors
    assert Counter(plan.component for plan in plans) == {
        Component.UNET: 1680,
        Component.VAE: 248,
        Component.TEXT_ENCODER: 196,
        Component.TEXT_ENCODER_2: 517,
    }
    assert {plan.source.name for plan in plans} == set(shapes) - {POSITION_IDS}
    assert plan.ignored == {"CLIP's position numbers": 1}


def test_fused_attention_is_the_only_source_used_more_than_once(
    tiny_shapes: Shapes, tiny_targets: Targets
):
    plans = plan_conversion(header_of(tiny_shapes), tiny_targets).tensors
    uses = Counter(plan.source.name for plan in plans)
    fused = {key for key, count in uses.items() if count > 1}
    assert all(".attn.in_proj_" in key and uses[key] == 3 for key in fused)
    thirds = [plan.transform.third for plan in plans if plan.source.name in fused]
    assert Counter(thirds) == {0: len(fused), 1: len(fused), 2: len(fused)}
    assert Counter(plan.transform for plan in plans)[Transform.TRANSPOSE] == 1


def test_missing_tensors_are_named_up_to_five(tiny_shapes: Shapes, tiny_targets: Targets):
    shapes = {key: shape for key, shape in tiny_shapes.items() if ".middle_block.0." not in key}
    with pytest.raises(CheckpointError, match=r"lacks tensors: .*middle_block\.0.* and 5 more;"):
        plan_conversion(header_of(shapes), tiny_targets)


def test_left_over_tensor_is_named(tiny_shapes: Shapes, tiny_targets: Targets):
    header = header_of({**tiny_shapes, "model.diffusion_model.extra.weight": (2,)})
    with pytest.raises(CheckpointError, match=r"unexpected tensors: model\.diffusion_model\.extra"):
        plan_conversion(header, tiny_targets)


NOISE_SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
"""The twelve tensors that OneTrainer writes into every checkpoint."""

HARMLESS: dict[str, tuple[str, ...]] = {
    "CLIP's position numbers": (
        "conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.text_model.embeddings.position_ids",
        "conditioner.embedders.1.transformer.text_model.embeddings.position_ids",
    ),
    "CLIP's temperature": (
        "conditioner.embedders.0.logit_scale",
        "conditioner.embedders.1.model.logit_scale",
        "text_encoders.clip_l.logit_scale",
    ),
    "the first text encoder's projection": (
        "conditioner.embedders.0.text_projection",
        "conditioner.embedders.0.text_projection.weight",
        "conditioner.embedders.0.transformer.text_projection.weight",
        "text_encoders.clip_l.transformer.text_projection.weight",
    ),
    "the noise schedule of the training": (
        "denoiser.sigmas",
        "denoiser.log_sigmas",
        "model_sampling.sigmas",
        "model_sampling.log_sigmas",
        *NOISE_SCHEDULE,
    ),
    "markers of what the UNet predicts": ("v_pred", "ztsnr"),
    "EMA weights": (
        "model_ema.diffusion_modelinput_blocks00weight",
        "model_ema.decay",
        "model_ema.num_updates",
        "model_ema.diffusion_model.input_blocks.0.0.weight",
    ),
    "left-overs of the VAE's training": (
        "first_stage_model.loss.logvar",
        "first_stage_model.model_ema.decay",
        "first_stage_model.loss.perceptual_loss.lin0.model.1.weight",
        "first_stage_model.discriminator.main.0.weight",
        "first_stage_model.global_step",
        "vae.epoch",
    ),
    "left-overs of the training": (
        "logvar",
        "scale_factor",
        "global_step",
        "epoch",
        "module.epoch",
        "embedding_manager.string_to_param_dict.cat",
        "discriminator.main.0.weight",
        "loss.logvar",
    ),
    NO_PART: ("optimizer.state.0.exp_avg", "cond_stage_model.logit_scale"),
}


@pytest.mark.parametrize(
    ("key", "reason"), [(key, reason) for reason, keys in HARMLESS.items() for key in keys]
)
def test_harmless_tensor_is_ignored_for_a_reason(
    tiny_shapes: Shapes, tiny_targets: Targets, key: str, reason: str
):
    header = header_of(tiny_shapes)
    odd = TensorInfo(header.path, key, "I64", (3, 1), 0, 24)  # its dtype doesn't matter
    header = standardise(replace(header, tensors={**header.tensors, key: odd}))
    own = Counter({"CLIP's position numbers": 1})  # the tiny checkpoint's
    assert plan_conversion(header, tiny_targets).ignored == own + Counter({reason: 1})


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.time_embed.cond_proj.weight",
        "conditioner.embedders.1.model.visual.proj",
        "conditioner.embedders.1.model.attn_mask",
        "conditioner.embedders.2.model.logit_scale",
        "text_encoders.t5xxl.transformer.shared.weight",
        "unet.down_blocks.0.resnets.0.conv1.weight",
        "first_stage_model.quantize.embedding.weight",
    ],
)
def test_no_other_tensor_under_a_networks_names_is_ignored(
    tiny_shapes: Shapes, tiny_targets: Targets, key: str
):
    header = standardise(header_of({**tiny_shapes, key: (1,)}))
    with pytest.raises(CheckpointError, match=f"unexpected tensors: {key};.* --ignore-unknown"):
        plan_conversion(header, tiny_targets)
    plan = plan_conversion(header, tiny_targets, ignore_unknown=True)
    assert plan.unknown == (key,)
    assert plan.tensors == plan_conversion(header_of(tiny_shapes), tiny_targets).tensors


@pytest.mark.parametrize(
    "key", ["bundle_emb.style.clip_l", "denoiser.sigmas.weight", "my_betas", "v_pred2"]
)
def test_a_tensor_of_no_part_of_sdxl_is_left_out_by_name(
    tiny_shapes: Shapes, tiny_targets: Targets, key: str
):
    plan = plan_conversion(header_of({**tiny_shapes, key: (1,)}), tiny_targets)
    assert plan.left_out[NO_PART] == (key,)
    assert plan.unknown == ()


UNDER_A_NETWORK = (
    "model.diffusion_model.",
    "diffusion_model.",
    "first_stage_model.",
    "vae.",
    "conditioner.",
    "text_encoders.",
    "unet.",
    "text_encoder.",
    "text_encoder_2.",
)
"""The rule for what needs --ignore-unknown: these beginnings, and no others."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 9))]
)
def test_an_extra_tensor_is_left_out_or_needs_the_option_by_its_beginning_alone(
    tiny_shapes: Shapes, seed: int
):
    plain = plan_conversion(header_of(tiny_shapes), parameters_of(SyntheticSize.TINY.value))
    extras = draw_extra_tensors(seed, [*tiny_shapes])
    assert len(extras) == 200
    refused = 0
    for extra in extras:
        header = header_of(tiny_shapes)
        info = TensorInfo(header.path, extra.name, extra.dtype, extra.shape, 0, 0)
        header = standardise(replace(header, tensors={**header.tensors, extra.name: info}))
        assert recognise(header).kind is CheckpointKind.SDXL
        targets = parameters_of(read_architecture(header))
        is_unknown = extra.name.startswith(UNDER_A_NETWORK)
        if is_unknown:
            refused += 1
            named = re.escape(clean_text(extra.name))
            with pytest.raises(CheckpointError, match=f"holds unexpected tensors: {named};"):
                plan_conversion(header, targets)
        plan = plan_conversion(header, targets, ignore_unknown=is_unknown)
        assert plan.unknown == ((extra.name,) if is_unknown else ()), extra
        assert plan.tensors == plain.tensors, extra
        assert sum(plan.ignored.values()) == sum(plain.ignored.values()) + 1, extra
    assert 60 < refused < 140


def test_all_missing_tensors_go_before_unknown_ones(tiny_shapes: Shapes, tiny_targets: Targets):
    shapes = {**tiny_shapes, "model.diffusion_model.more": (1,)}
    del shapes["model.diffusion_model.out.2.bias"]
    for ignore_unknown in (False, True):
        with pytest.raises(CheckpointError, match=r"lacks tensors: model\.diffusion_model\.out"):
            plan_conversion(header_of(shapes), tiny_targets, ignore_unknown=ignore_unknown)


def test_a_foreign_name_is_fit_for_a_terminal(tiny_shapes: Shapes, tiny_targets: Targets):
    header = header_of({**tiny_shapes, "vae.\x1b[31m\n" + "x" * 999: (1,)})
    with pytest.raises(CheckpointError) as refused:
        plan_conversion(standardise(header), tiny_targets)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


def test_both_projections_at_once_are_refused(tiny_shapes: Shapes, tiny_targets: Targets):
    """Which one is right can't be told, and the shape is the same."""
    key = "conditioner.embedders.1.model.text_projection"
    header = standardise(header_of({**tiny_shapes, f"{key}.weight": tiny_shapes[key]}))
    with pytest.raises(CheckpointError, match=r"unexpected tensors: .*text_projection"):
        plan_conversion(header, tiny_targets)


def test_misshapen_tensor_is_named(tiny_shapes: Shapes, tiny_targets: Targets):
    key = "model.diffusion_model.output_blocks.3.0.in_layers.2.weight"
    header = header_of({**tiny_shapes, key: (64, 64, 3, 3)})
    with pytest.raises(CheckpointError, match=r"output_blocks\.3.*\[64, 64, 3, 3\].*right"):
        plan_conversion(header, tiny_targets)


@pytest.mark.parametrize("dtype", ["I8", "U8", "I64", "F8_E4M3FNUZ", "F8_E8M0"])
def test_dtype_that_is_no_weight_is_named(tiny_shapes: Shapes, tiny_targets: Targets, dtype: str):
    with pytest.raises(CheckpointError, match=f"has the dtype {dtype}; F16, .* can be imported"):
        plan_conversion(header_of(tiny_shapes, dtype=dtype), tiny_targets)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2"])
def test_dtype_that_stands_for_itself_is_taken(
    tiny_shapes: Shapes, tiny_targets: Targets, dtype: str
):
    assert plan_conversion(header_of(tiny_shapes, dtype=dtype), tiny_targets)


def test_the_file_that_gave_the_vae_is_the_one_named(tiny_shapes: Shapes, tiny_targets: Targets):
    """A VAE of another file has a tensor too many: that file is to blame."""
    name = "first_stage_model.encoder.more.weight"
    header = header_of({**tiny_shapes, name: (1,)})
    header = replace(header, vae_path=Path("vae.safetensors"))
    with pytest.raises(CheckpointError, match=r"^vae\.safetensors holds unexpected"):
        plan_conversion(header, tiny_targets)
