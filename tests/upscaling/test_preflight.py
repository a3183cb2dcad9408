"""An upscaler's file is known from the names and shapes of its tensors, and what is wrong named."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lpw_sdxl.errors import AddonError
from lpw_sdxl.upscaling.design import Design, Family
from lpw_sdxl.upscaling.preflight import examine, is_upscaler
from lpw_sdxl.weights.header import CheckpointHeader, TensorInfo
from tests.forge.upscalers import NAMINGS, CompactRecipe, EsrganRecipe

from .conftest import Plan, Tensors

TINY = EsrganRecipe(channels=8, blocks=2)


def named(*names: str) -> CheckpointHeader:
    """A header with tensors of these names, `[8, 8, 3, 3]` each."""
    path = Path("other.safetensors")
    infos = {name: TensorInfo(path, name, "F16", (8, 8, 3, 3), 0, 0) for name in names}
    return CheckpointHeader(path, 0, {}, infos)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("doublings", [0, 1, 2, 3])
def test_the_names_of_all_programs_are_one_network(plan: Plan, naming: str, doublings: int):
    judged = plan(EsrganRecipe(naming, doublings, blocks=2).tensors())
    assert judged.design == Design(Family.ESRGAN, 2**doublings, 8, 2, growth=32)
    basic = EsrganRecipe("basic", doublings, blocks=2).tensors()
    assert {name: info.shape for name, info in judged.sources.items()} == {
        name: tuple(tensor.shape) for name, tensor in basic.items()
    }
    assert judged.design.shapes().keys() == basic.keys()


def test_the_new_names_are_in_the_order_of_the_old_ones(plan: Plan):
    """Tensors of one seed are drawn in one order, so the same place is the same tensor."""
    for naming in NAMINGS:
        theirs = EsrganRecipe(naming, blocks=2).tensors()
        sources = plan(theirs).sources
        basic = EsrganRecipe("basic", blocks=2).tensors()
        for name, tensor in basic.items():
            assert torch.equal(theirs[sources[name].name], tensor), name


@pytest.mark.parametrize(
    ("doublings", "unshuffle", "scale"), [(2, 2, 2), (2, 4, 1), (3, 2, 4), (2, 1, 4)]
)
def test_unshuffled_pixels_divide_the_scale(plan: Plan, doublings: int, unshuffle: int, scale: int):
    design = plan(EsrganRecipe("basic", doublings, unshuffle).tensors()).design
    assert (design.scale, design.unshuffle, design.doublings) == (scale, unshuffle, doublings)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_a_compact_network_has_its_scale_in_its_last_channels(plan: Plan, scale: int):
    design = plan(CompactRecipe(scale, channels=16, blocks=5).tensors()).design
    assert design == Design(Family.COMPACT, scale, 16, 5)


@pytest.mark.parametrize("prefix", ["module.", "params_ema.", "module.generator."])
def test_a_prefix_of_all_names_is_left_out(plan: Plan, prefix: str):
    tensors = TINY.tensors()
    judged = plan({prefix + name: tensor for name, tensor in tensors.items()})
    assert judged.design == plan(tensors).design
    assert judged.sources["conv_hr.bias"].name == f"{prefix}conv_hr.bias"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("model.1.sub.0.RDB1.conv1x1.weight", "an ESRGAN+ network"),
        ("layers.0.residual_group.blocks.0.attn.relative_position_index", "a SwinIR network"),
        ("layers.0.residual_group.blocks.0.attn.cpb_mlp.0.weight", "a Swin2SR network"),
        ("layers.0.residual_group.blocks.0.conv_block.cab.0.weight", "an HAT network"),
        ("before_RG.1.weight", "a DAT network"),
        ("residual_layer.0.residual_layer.0.layer.0.fn.0.weight", "an OmniSR network"),
        ("block_1.c1_r.sk.weight", "a SPAN network"),
        ("feats.1.lk.conv.weight", "a PLKSR network"),
        ("unet1.conv1.conv.0.weight", "a Real-CUGAN network"),
        ("stylegan_decoder.style_mlp.1.weight", "a GFPGAN network"),
    ],
)
@pytest.mark.parametrize("others", [(), ("conv_first.weight", "conv_last.weight")])
def test_another_network_is_refused_by_its_name(name: str, title: str, others: tuple[str, ...]):
    header = named(name, *others)
    with pytest.raises(AddonError) as raised:
        examine(header)
    assert str(raised.value) == (
        f"other.safetensors is {title}, which is not served; ESRGAN's family is: ESRGAN, "
        "Real-ESRGAN and the compact network."
    )
    assert is_upscaler(header)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("conv_first.weight", "odd.weight"), "is an upscaler of another network, which is not"),
        (("odd.weight",), "is no upscaler that we know; an upscaler of ESRGAN's family is needed."),
        (("clip_l", "clip_g"), "is a textual inversion embedding; an upscaler of ESRGAN's"),
        (("lora_unet_x.lora_up.weight",), "is a LoRA; an upscaler of ESRGAN's family is needed."),
    ],
)
def test_other_files_are_named(names: tuple[str, ...], sentence: str):
    with pytest.raises(AddonError) as raised:
        examine(named(*names))
    assert sentence in str(raised.value)


def without(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: operator.delitem(tensors, name)


def with_tensor(name: str, *shape: int) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            without("body.1.rdb2.conv3.bias"),
            "is a network of ESRGAN with 2 blocks that lacks body.1.rdb2.conv3.bias;",
        ),
        (
            with_tensor("body.0.rdb1.conv6.weight", 8, 8, 3, 3),
            "is no network of ESRGAN with 2 blocks, which has no place for body.0.rdb1.conv6",
        ),
        (
            with_tensor("conv_hr.weight", 8, 9, 3, 3),
            "conv_hr.weight has the shape [8, 9, 3, 3]; [8, 8, 3, 3] would be right in this",
        ),
        (with_tensor("conv_first.weight", 8, 4, 3, 3), "takes pictures of 4 channels; 3 would be"),
        (with_tensor("conv_first.weight", 8), "conv_first.weight has the shape [8]; [outputs,"),
        (with_tensor("conv_last.weight", 1, 8, 3, 3), "[3, 8, 3, 3] would be right"),
        (
            lambda tensors: tensors.update({"conv_hr.bias": torch.zeros(8, dtype=torch.int64)}),
            "conv_hr.bias has the dtype I64; F32, F16 or BF16 would be right.",
        ),
        (without("conv_up1.weight"), "has no place for conv_up2.bias, conv_up2.weight"),
    ],
)
def test_what_is_wrong_with_an_esrgan_is_named(
    plan: Plan, change: Callable[[Tensors], None], sentence: str
):
    tensors = TINY.tensors()
    change(tensors)
    with pytest.raises(AddonError) as raised:
        plan(tensors)
    assert sentence in str(raised.value)


def test_a_compact_network_of_no_scale_is_refused(plan: Plan):
    tensors = CompactRecipe(2, blocks=1).tensors()
    tensors["body.4.weight"] = torch.zeros(24, 8, 3, 3)
    with pytest.raises(AddonError, match="24 channels at its end; 3, 12, 27 or 48 would be right"):
        plan(tensors)


def test_sizes_that_no_network_has_are_refused_before_their_shapes_are_made(plan: Plan):
    with pytest.raises(AddonError, match="has 513 channels; at most 512 would be right"):
        plan(TINY.tensors() | {"conv_first.weight": torch.zeros(513, 3, 3, 3)})
