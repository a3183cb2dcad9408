"""Products in fp8: which layers, how far from the plain ones, and that mates change no bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from diffusion.counted import CountedOperations, calls_of
from diffusion.test_fused_unet import arguments
from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.denoiser import Denoiser, padded_rows
from lpw_sdxl.diffusion.feed_forward import split_gates
from lpw_sdxl.diffusion.float8 import (
    LAYERS,
    Float8Products,
    count_quantised_bytes,
    find_width_obstacle,
    quantise_unet,
    quantised_weight,
)
from lpw_sdxl.diffusion.fused_unet import Fusion, arrange_weights, fuse_unet
from lpw_sdxl.diffusion.kernels.trial import relative_error
from lpw_sdxl.weights.float8 import quantise_rows

CPU = torch.device("cpu")


class CountedProducts(Float8Products):
    """Products that count themselves."""

    def __init__(self) -> None:
        super().__init__(torch.float32)
        self.count = 0

    def multiply(self, *arguments: Any) -> torch.Tensor:
        self.count += 1
        return super().multiply(*arguments)


def quantised(unet: Any) -> tuple[CountedOperations, CountedProducts]:
    """Make a UNet compute in fp8."""
    arrange_weights(unet)
    quantise_unet(unet)
    PromptProjection(unet)
    split_gates(unet)
    operations, products = CountedOperations(), CountedProducts()
    fuse_unet(unet, Fusion(operations, products))
    return operations, products


def test_a_product_is_that_of_the_rounded_numbers() -> None:
    activation, weight = torch.randn(2, 5, 64), torch.randn(48, 64)
    bias = torch.randn(48)
    given, kept = quantise_rows(activation), quantise_rows(weight)
    found = Float8Products(torch.float32).multiply(given, kept, bias)
    expected = given.restored().double() @ kept.restored().double().T + bias
    assert found.shape == (2, 5, 48)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    plain = activation @ weight.T + bias
    assert 0.01 < relative_error(found, plain) < 0.05  # two roundings to three bits


def test_the_dtype_of_results_is_tried_and_bfloat16_comes_first_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    product = torch._scaled_mm

    def only_bfloat16(*arguments: Any, out_dtype: torch.dtype, **named: Any) -> torch.Tensor:
        if out_dtype != torch.bfloat16:
            raise RuntimeError("Only bf16 high precision output types are supported")
        return product(*arguments, out_dtype=out_dtype, **named)

    monkeypatch.setattr(torch, "_scaled_mm", only_bfloat16)
    products = Float8Products(torch.float16)
    products.choose_result(CPU)
    one = quantise_rows(torch.randn(16, 32))
    assert products.multiply(one, one, torch.zeros(16)).dtype == torch.float16
    monkeypatch.setattr(torch, "_scaled_mm", lambda *_, **__: product(None))
    with pytest.raises((RuntimeError, TypeError)):
        products.choose_result(CPU)


@torch.inference_mode()
def test_large_products_of_transformers_are_in_fp8_and_no_others(unet: Any) -> None:
    plain = copy.deepcopy(unet)
    PromptProjection(plain)
    operations, products = quantised(unet)
    given = arguments(unet, size=(8, 8))
    error = relative_error(unet(**given)[0], plain(**given)[0])
    assert 1e-2 < error < 0.1  # 7 % were found, for random inputs
    blocks = sum(isinstance(one, BasicTransformerBlock) for one in unet.modules())
    assert products.count == 6 * blocks  # query, key and value are one
    assert dict(operations.counts) == calls_of(unet, quantises=True)
    marked = [name for name, one in unet.named_modules() if "quantised" in vars(one)]
    assert len(marked) == len(LAYERS) * blocks
    assert not any("attn2.to_k" in name or "proj_in" in name for name in marked)
    assert count_quantised_bytes(unet) == sum(
        quantised_weight(unet.get_submodule(name)).size for name in marked
    )


@torch.inference_mode()
def test_in_calls_of_one_shape_mates_change_no_bit(unet: Any) -> None:
    quantised(unet)
    given = arguments(unet, 4, size=(8, 8))
    first = unet(**given)[0][:1]
    given["sample"][1:] *= 5
    given["encoder_hidden_states"][1:] *= 5
    assert torch.equal(unet(**given)[0][:1], first)


@torch.inference_mode()
def test_a_layer_that_computes_in_a_way_of_its_own_takes_its_transformer_back(unet: Any) -> None:
    _, products = quantised(unet)
    transformer = unet.mid_block.attentions[0]
    layer = transformer.transformer_blocks[0].ff.net[2]
    layer.forward = lambda states: nn.Linear.forward(layer, states)
    unet(**arguments(unet, size=(8, 8)))
    blocks = sum(isinstance(one, BasicTransformerBlock) for one in unet.modules())
    assert products.count == 6 * (blocks - len(transformer.transformer_blocks))


def test_widths_that_fp8_products_do_not_take_are_named(unet: Any) -> None:
    assert find_width_obstacle(unet) is None
    layer = unet.mid_block.attentions[0].transformer_blocks[0].ff.net[2]
    layer.weight.data = torch.zeros(layer.out_features, 24)
    found = find_width_obstacle(unet)
    assert found is not None
    assert found.startswith("mid_block.attentions.0.transformer_blocks.0.ff.net.2 has 24 inputs")


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        (1, 16, 2), (2, 16, 2), (3, 16, 4), (4, 16, 4), (5, 16, 8), (9, 16, 16), (16, 16, 16),
        (3, 3, 3), (5, 6, 6), (1, 1, 1), (17, 40, 32), (33, 40, 40), (8, 4, 8),
    ],
)  # fmt: skip
def test_rows_are_filled_up_to_a_round_number_that_has_room(
    rows: int, most: int, expected: int
) -> None:
    assert padded_rows(rows, most) == expected


@torch.inference_mode()
def test_an_images_rows_do_not_depend_on_how_many_fill_its_call(
    unet: Any, make_denoising: Any
) -> None:
    arrange_weights(unet)
    quantise_unet(unet)
    shapes: list[int] = []
    own = unet.forward
    unet.forward = lambda **given: (shapes.append(len(given["sample"])), own(**given))[1]
    fusion = Fusion(CountedOperations(), Float8Products(torch.float32))
    denoiser = Denoiser(unet, CPU, fusion=fusion)
    images = [make_denoising(77, 77, seed=seed) for seed in range(4)]
    three = denoiser.predict(images[:3], [range(6)], 16)
    four = denoiser.predict(images, [range(8)], 16)
    assert shapes == [8, 8]
    assert [len(one) for one in three] == [2, 2, 2]
    for one, other in zip(three, four, strict=False):
        assert torch.equal(one, other)
    denoiser.predict(images[:3], [range(6)], 6)
    assert shapes[-1] == 6
