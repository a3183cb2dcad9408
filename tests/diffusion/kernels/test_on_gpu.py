"""What only a GPU can show of the kernels, the fused networks and the products in fp8."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.counted import calls_of
from diffusion.test_fused_unet import arguments
from lpw_sdxl.diffusion.attention import PromptProjection
from lpw_sdxl.diffusion.decoder import Decoder
from lpw_sdxl.diffusion.feed_forward import split_gates
from lpw_sdxl.diffusion.float8 import Float8Products, quantise_unet
from lpw_sdxl.diffusion.fused_unet import Fusion, arrange_weights, fuse_unet
from lpw_sdxl.diffusion.fused_vae import fuse_vae, scale_down_stream
from lpw_sdxl.diffusion.graphs import CALLS_BEFORE_RECORDING, GraphedUnet
from lpw_sdxl.diffusion.kernels.choice import choose_operations, find_device_obstacle
from lpw_sdxl.diffusion.kernels.operations import Operations
from lpw_sdxl.diffusion.kernels.trial import relative_error

GPU = torch.device("cuda", 0)
INPUTS = 64  # random ones of the comparison with float32
HALF = [torch.float16, torch.bfloat16]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def choose(network: Any, *, quantises: bool = False) -> Operations:
    obstacle = find_device_obstacle(GPU, quantises=quantises)
    if obstacle is not None:
        pytest.skip(obstacle)
    choice = choose_operations(GPU, [network], quantises=quantises)
    assert choice.operations is not None, choice.obstacle
    return choice.operations


def fuse(unet: Any, *, quantises: bool = False) -> Any:
    """Return a fused copy of a UNet on the GPU."""
    operations = choose(unet, quantises=quantises)
    fused = copy.deepcopy(unet)
    arrange_weights(fused)
    PromptProjection(fused)
    split_gates(fused)
    products = None
    if quantises:
        quantise_unet(fused)
        products = Float8Products(fused.dtype)
        products.choose_result(GPU)
    fuse_unet(fused, Fusion(operations, products))
    return fused


def on_gpu(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, dict):
        return {name: on_gpu(inner, dtype) for name, inner in value.items()}
    if not isinstance(value, Tensor):
        return value
    return value.to(GPU, dtype if value.is_floating_point() else None)


def given_to(unet: Any, rows: int, *, seed: int = 1, **options: Any) -> dict[str, Any]:
    given = on_gpu(arguments(unet, rows, **options), unet.dtype)
    drawn = torch.Generator(GPU).manual_seed(seed)
    given["sample"] = torch.randn(
        given["sample"].shape, generator=drawn, device=GPU, dtype=torch.float32
    ).to(unet.dtype)
    return given


@pytest.mark.parametrize("dtype", [*HALF, torch.float32], ids=str)
def test_all_kernels_pass_their_trial(unet: Any, vae: Any, dtype: torch.dtype) -> None:
    choose(unet.to(dtype))
    choose(vae.to(dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["of one length", "masked"])
def test_a_fused_unet_is_no_farther_from_float32(
    unet: Any, dtype: torch.dtype, masked: bool
) -> None:
    exact = copy.deepcopy(unet).to(GPU)
    plain = copy.deepcopy(unet).to(GPU, dtype)
    fused = fuse(plain)
    for one in (exact, plain):
        PromptProjection(one)
        split_gates(one)
    errors = {"plain": 0.0, "fused": 0.0}
    for seed in range(INPUTS):
        given = given_to(plain, 2, seed=seed, masked=masked)
        expected = exact(**on_gpu(given, torch.float32))[0]
        for name, one in (("plain", plain), ("fused", fused)):
            errors[name] += relative_error(one(**given)[0], expected) / INPUTS
    assert errors["fused"] <= 1.02 * errors["plain"], errors


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_row_alone_is_the_row_among_fifteen(unet: Any, dtype: torch.dtype) -> None:
    fused = fuse(unet.to(GPU, dtype))
    given = given_to(fused, 16)
    together = fused(**given)[0]
    one = {
        name: {inner: value[:1] for inner, value in part.items()}
        if isinstance(part, dict)
        else part[:1]
        if isinstance(part, Tensor)
        else part
        for name, part in given.items()
    }
    bar = 2e-3 if dtype == torch.float16 else 1.6e-2
    assert relative_error(fused(**one)[0], together[:1]) <= bar
    given["sample"][1:] *= 3
    assert torch.equal(fused(**given)[0][:1], together[:1])


def test_a_fused_unet_is_replayed_as_a_graph(unet: Any) -> None:
    fused = fuse(unet.to(GPU, torch.float16))
    graphed = GraphedUnet(fused, 2**30)
    for call in range(CALLS_BEFORE_RECORDING + 3):
        given = given_to(fused, 2, seed=call)
        assert torch.equal(graphed(**given)[0], fused(**given)[0])
    assert len(graphed._recorded) == 1


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_in_fp8_mates_change_no_bit_of_a_call_of_one_shape(unet: Any, dtype: torch.dtype) -> None:
    plain = unet.to(GPU, dtype)
    fused = fuse(plain, quantises=True)
    PromptProjection(plain)
    given = given_to(fused, 16)
    first = fused(**given)[0]
    # On random inputs of 8 x 8 a CPU's bfloat16 was 8 % from the demo model's own.
    assert 1e-3 < relative_error(first, plain(**given)[0]) < 0.12
    given["sample"][1:] *= 3
    assert torch.equal(fused(**given)[0][:1], first[:1])


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_half_precision_vae_draws_what_float32_draws(vae: Any, dtype: torch.dtype) -> None:
    latents = torch.randn(1, 4, 32, 48, generator=torch.Generator().manual_seed(0)).to(GPU)
    expected = Decoder(copy.deepcopy(vae).to(GPU), 2**40).decode(latents).astype(int)
    half = vae.to(GPU, dtype)
    scale_down_stream(half)
    fuse_vae(half, choose(half))
    assert all("forward" in vars(one) for one in half.decoder.mid_block.resnets)
    assert calls_of(half)["group_norm"] > 0
    difference = abs(Decoder(half, 2**40).decode(latents) - expected)
    assert difference.mean() <= (0.5 if dtype == torch.float16 else 2.0)
    assert difference.max() <= (4 if dtype == torch.float16 else 24)
