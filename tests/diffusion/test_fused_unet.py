"""A fused UNet: the numbers of the plain one, alone and in company, with every block fused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion.counted import CountedOperations, calls_of
from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.denoiser import Denoiser
from lpw_sdxl.diffusion.feed_forward import split_gates
from lpw_sdxl.diffusion.fused_layers import view_joined
from lpw_sdxl.diffusion.fused_unet import Fusion, arrange_weights, fuse_unet
from lpw_sdxl.diffusion.kernels.plain import PlainOperations
from lpw_sdxl.diffusion.kernels.trial import relative_error

CPU = torch.device("cpu")
ROWS = 16
LENGTHS = [77, 5, 60, 77] * (ROWS // 4)


def plain_and_fused(unet: Any) -> tuple[Any, Any, CountedOperations]:
    """Return a UNet as the engine calls it, and the same one fused."""
    fused = copy.deepcopy(unet)
    arrange_weights(fused)
    for one in (unet, fused):
        PromptProjection(one)
        split_gates(one)
    operations = CountedOperations()
    fuse_unet(fused, Fusion(operations))
    return unet, fused, operations


def arguments(
    unet: Any, rows: int = 3, *, size: tuple[int, int] = (24, 16), masked: bool = False
) -> dict[str, Any]:
    config, drawn = unet.config, torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(ROWS, *shape, generator=drawn)[:rows].to(unet.dtype)

    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    given: dict[str, Any] = {
        "sample": draw(4, *size),
        "timestep": torch.linspace(20, 980, ROWS)[:rows],
        "encoder_hidden_states": draw(77, config.cross_attention_dim),
        "added_cond_kwargs": {"text_embeds": draw(pooled), "time_ids": draw(6)},
        "return_dict": False,
    }
    if masked:
        mask = torch.arange(77)[None] < torch.tensor(LENGTHS)[:, None]
        given["encoder_attention_mask"] = mask[:rows]
    return given


@pytest.mark.parametrize("masked", [False, True], ids=["of one length", "masked"])
@pytest.mark.parametrize("size", [(24, 16), (9, 7)], ids=str)
@torch.inference_mode()
def test_a_fused_unet_is_the_plain_one(unet: Any, size: tuple[int, int], masked: bool) -> None:
    plain, fused, operations = plain_and_fused(unet)
    given = arguments(plain, size=size, masked=masked)
    expected, found = plain(**given)[0], fused(**given)[0]
    assert dict(operations.counts) == calls_of(fused)
    assert relative_error(found, expected) <= 2e-6


@torch.inference_mode()
def test_in_float64_it_is_the_plain_one_to_the_last_digits(unet: Any) -> None:
    plain, fused, _ = plain_and_fused(unet.double())
    given = arguments(plain, masked=True)
    assert relative_error(fused(**given)[0], plain(**given)[0]) <= 1e-13


@torch.inference_mode()
def test_in_half_precision_it_is_no_farther_from_float32_than_the_plain_one(unet: Any) -> None:
    exact = copy.deepcopy(unet)
    PromptProjection(exact)
    plain, fused, _ = plain_and_fused(unet.bfloat16())  # which a CPU adds up in float32
    given = arguments(plain)
    expected = exact(**{**arguments(exact), **upcast(given)})[0]
    errors = [relative_error(one(**given)[0], expected) for one in (plain, fused)]
    assert errors[1] <= errors[0] * 1.05


def upcast(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: upcast(inner) for name, inner in value.items()}
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@torch.inference_mode()
def test_a_row_alone_is_the_row_among_fifteen(unet: Any) -> None:
    _, fused, _ = plain_and_fused(unet)
    together = fused(**arguments(fused, ROWS))[0]
    alone = fused(**arguments(fused, 1))[0]
    assert relative_error(alone, together[:1]) <= 2e-6
    # In calls of one shape the mates change no bit.
    mates = arguments(fused, ROWS)
    mates["sample"][1:] *= 3
    assert torch.equal(fused(**mates)[0][:1], together[:1])


@torch.inference_mode()
def test_query_key_and_value_are_one_product_until_one_is_exchanged(
    unet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, fused, _ = plain_and_fused(unet)
    layers = [
        layer
        for name, module in fused.named_modules()
        if name.endswith("attn1")
        for layer in (module.to_q, module.to_k, module.to_v)
    ]
    called: list[nn.Module] = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: called.append(layer))
    fused(**arguments(fused))
    assert called == []
    other = layers[1].weight.data * 2
    layers[1].weight.data = other
    path = next(name for name, module in fused.named_modules() if module is layers[1])
    plain.get_submodule(path).weight.data = other.clone()
    found, expected = (one(**arguments(fused))[0] for one in (fused, plain))
    assert called == layers[:3]
    assert relative_error(found, expected) <= 2e-6


def test_weights_that_lie_side_by_side_by_chance_are_not_joined() -> None:
    whole = torch.arange(24.0)
    first, second = whole[:8].view(2, 4), whole[8:24].view(4, 4)
    joined = view_joined((first, second))
    assert joined is not None
    assert torch.equal(joined, whole.view(6, 4))
    assert view_joined((first, second.clone())) is None
    assert view_joined((second, first)) is None
    assert view_joined((first, whole[12:20].view(2, 4))) is None
    assert view_joined((first, whole[8:24].view(4, 4).t())) is None


@torch.inference_mode()
def test_blocks_of_another_kind_are_left_to_diffusers(unet: Any) -> None:
    arrange_weights(unet)
    resnet = unet.down_blocks[0].resnets[0]
    transformer = unet.mid_block.attentions[0]
    resnet.output_scale_factor = 2.0
    transformer.transformer_blocks[0].norm_type = "ada_norm"
    fuse_unet(unet, Fusion(PlainOperations()))
    assert "forward" not in vars(resnet)
    assert "forward" not in vars(transformer)
    assert "forward" in vars(unet.down_blocks[0].resnets[1])


def test_the_denoiser_predicts_the_same(unet: Any, make_denoising: Any) -> None:
    group = [make_denoising(*pair, seed=seed) for seed, pair in enumerate([(77, 154), (3, 400)])]
    other = copy.deepcopy(unet)
    expected = torch.cat(Denoiser(unet, CPU).predict(group, [[0, 1, 2, 3]]))
    arrange_weights(other)
    operations = CountedOperations()
    denoiser = Denoiser(other, CPU, fusion=Fusion(operations))
    found = torch.cat(denoiser.predict(group, [[0, 1, 2, 3]]))
    assert operations.counts["gate"] > 0
    assert relative_error(found, expected) <= 2e-6
