"""The plan of a conversion: everything used once, everything else refused by name."""

from __future__ import annotations

from collections import Counter

import pytest

from lpw_sdxl.checkpoint.configs import Component, component_configs
from lpw_sdxl.checkpoint.dtypes import CheckpointDtype
from lpw_sdxl.checkpoint.keys import Transform
from lpw_sdxl.checkpoint.plan import Targets, plan_conversion
from lpw_sdxl.checkpoint.skeleton import parameter_shapes
from lpw_sdxl.checkpoint.synthetic import POSITION_IDS, SyntheticSize, tensor_shapes
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.schema import ImageSize

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
    plans = plan_conversion(header, _targets(SyntheticSize.FULL))
    assert Counter(plan.component for plan in plans) == {
        Component.UNET: 1680,
        Component.VAE: 248,
        Component.TEXT_ENCODER: 196,
        Component.TEXT_ENCODER_2: 517,
    }
    assert {plan.source_key for plan in plans} == set(shapes) - {POSITION_IDS}


def test_fused_attention_is_the_only_source_used_more_than_once(
    tiny_shapes: Shapes, tiny_targets: Targets
):
    plans = plan_conversion(header_of(tiny_shapes), tiny_targets)
    uses = Counter(plan.source_key for plan in plans)
    fused = {key for key, count in uses.items() if count > 1}
    assert all(".attn.in_proj_" in key and uses[key] == 3 for key in fused)
    thirds = [plan.transform.third for plan in plans if plan.source_key in fused]
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


@pytest.mark.parametrize(
    "key",
    [
        "v_pred",
        "ztsnr",
        "denoiser.sigmas",
        "alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "conditioner.embedders.1.model.logit_scale",
        "model_ema.diffusion_modelinput_blocks00weight",
    ],
)
def test_harmless_tensor_is_ignored(tiny_shapes: Shapes, tiny_targets: Targets, key: str):
    assert plan_conversion(header_of({**tiny_shapes, key: (1,)}), tiny_targets)


def test_misshapen_tensor_is_named(tiny_shapes: Shapes, tiny_targets: Targets):
    key = "model.diffusion_model.output_blocks.3.0.in_layers.2.weight"
    header = header_of({**tiny_shapes, key: (64, 64, 3, 3)})
    with pytest.raises(CheckpointError, match=r"output_blocks\.3.*\[64, 64, 3, 3\].*right"):
        plan_conversion(header, tiny_targets)


def test_dtype_that_is_no_weight_is_named(tiny_shapes: Shapes, tiny_targets: Targets):
    with pytest.raises(CheckpointError, match="has the dtype F8_E4M3"):
        plan_conversion(header_of(tiny_shapes, dtype="F8_E4M3"), tiny_targets)
