"""The VAE's faster layers: the same numbers as torch's and Diffusers' own."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lpw_sdxl.diffusion import vae_layers
from lpw_sdxl.diffusion.decoder import Decoder
from lpw_sdxl.diffusion.encoder import Encoder
from lpw_sdxl.diffusion.vae_layers import attend_in_parts, group_norm, install_fast_layers

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 32, 7, 5), (3, 64, 16), (2, 32, 4, 4, 3)], ids=str)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_groups_are_normalised_as_torch_does(shape: tuple[int, ...], offset: float) -> None:
    states = drawn(*shape) * 3 + offset
    weight, bias = drawn(shape[1], seed=1), drawn(shape[1], seed=2)
    expected = F.group_norm(states.double(), 16, weight.double(), bias.double(), 1e-6)
    error = (group_norm(states, 16, weight, bias, 1e-6) - expected).abs().max()
    unit = torch.finfo(torch.float32).eps * states.abs().max() / 3 * weight.abs().max()
    assert error < 2 * unit  # the precision of float32 for numbers so far from their mean


def test_another_layout_of_memory_gives_the_same() -> None:
    states = drawn(2, 32, 6, 4)
    weight, bias = drawn(32, seed=1), drawn(32, seed=2)
    last = group_norm(states.to(memory_format=torch.channels_last), 8, weight, bias, 1e-6)
    torch.testing.assert_close(last, group_norm(states, 8, weight, bias, 1e-6))


@pytest.mark.parametrize("max_scores", [1, 30, 45, 10_000], ids=lambda scores: f"{scores}-scores")
def test_attention_in_parts_is_attention(max_scores: int) -> None:
    query, key, value = (drawn(2, 15, 8, seed=seed) * 2 for seed in range(3))
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attend_in_parts(query, key, value, max_scores), expected)


@pytest.mark.parametrize("is_on", [False, True])
def test_products_are_tf32_and_the_switch_is_returned_as_it_was(
    monkeypatch: pytest.MonkeyPatch, is_on: bool
) -> None:
    switch = torch.backends.cuda.matmul
    seen = []

    def fail(*_: object, **__: object) -> None:
        seen.append(switch.allow_tf32)
        raise MemoryError

    monkeypatch.setattr(torch, "softmax", fail)
    found = switch.fp32_precision
    try:
        if is_on:
            switch.allow_tf32 = True
        before = (switch.allow_tf32, switch.fp32_precision)
        with pytest.raises(MemoryError):
            attend_in_parts(*(drawn(1, 3, 8) for _ in range(3)))
        assert (switch.allow_tf32, switch.fp32_precision) == before
    finally:
        switch.allow_tf32 = False
        switch.fp32_precision = found
    assert seen == [True]


@torch.inference_mode()
@pytest.mark.parametrize("is_slow", [False, True])
def test_a_decode_is_what_diffusers_decodes(
    vae: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_slow: bool
) -> None:
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    latents = drawn(2, 4, 12, 8)
    expected = vae.decode(latents).sample
    monkeypatch.setattr(vae_layers, "is_slow_in_torch", lambda _: is_slow)
    install_fast_layers(vae)
    torch.testing.assert_close(vae.decode(latents).sample, expected, rtol=1e-4, atol=1e-4)
    assert caplog.text == ""  # Diffusers warns of arguments that a processor does not know


@torch.inference_mode()
@pytest.mark.parametrize("is_slow", [False, True])
def test_an_encoding_is_what_diffusers_encodes(
    vae: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_slow: bool
) -> None:
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    pictures = drawn(2, 3, 96, 64)
    expected = vae.encode(pictures).latent_dist.parameters
    monkeypatch.setattr(vae_layers, "is_slow_in_torch", lambda _: is_slow)
    install_fast_layers(vae)
    encoded = vae.encode(pictures).latent_dist.parameters
    torch.testing.assert_close(encoded, expected, rtol=1e-4, atol=1e-4)
    assert caplog.text == ""


@torch.inference_mode()
def test_the_faster_layers_are_used_where_torch_is_slow(
    vae: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"group_norm": 0, "attend_in_parts": 0}
    for name in counts:
        own = getattr(vae_layers, name)

        def counted(*arguments: Any, name: str = name, own: Any = own) -> Any:
            counts[name] += 1
            return own(*arguments)

        monkeypatch.setattr(vae_layers, name, counted)
    install_fast_layers(vae)
    vae.decode(drawn(1, 4, 8, 8))
    assert counts == {"group_norm": 0, "attend_in_parts": 0}
    monkeypatch.setattr(vae_layers, "is_slow_in_torch", lambda _: True)
    vae.decode(drawn(1, 4, 8, 8))
    norms = [one for one in vae.decoder.modules() if isinstance(one, torch.nn.GroupNorm)]
    assert counts == {"group_norm": len(norms), "attend_in_parts": 1}
    vae.encode(drawn(1, 3, 64, 64))
    norms += [one for one in vae.encoder.modules() if isinstance(one, torch.nn.GroupNorm)]
    assert counts == {"group_norm": len(norms), "attend_in_parts": 2}


@torch.inference_mode()
def test_a_copy_has_weights_of_its_own(vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae_layers, "is_slow_in_torch", lambda _: True)
    install_fast_layers(vae)
    other = copy.deepcopy(vae)
    other.decoder.conv_norm_out.bias += 1
    latents = drawn(1, 4, 8, 8)
    assert not torch.allclose(vae.decode(latents).sample, other.decode(latents).sample)


@pytest.mark.gpu
@needs_cuda
@torch.inference_mode()
def test_a_gpu_decodes_the_same_picture_either_way(
    vae: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(vae.cuda(), 2**40)
    latents = drawn(1, 4, 32, 48).cuda()
    assert vae_layers.is_slow_in_torch(latents)
    assert not vae_layers.is_slow_in_torch(latents.half())
    ours = decoder.decode(latents).astype(int)
    monkeypatch.setattr(vae_layers, "is_slow_in_torch", lambda _: False)
    assert abs(ours - decoder.decode(latents)).max() <= 2  # levels; TF32's mantissa has 10 bits


@pytest.mark.gpu
@needs_cuda
@torch.inference_mode()
def test_a_gpu_encodes_the_same_latents_either_way(
    vae: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(vae.cuda(), 2**40)
    pixels = np.random.default_rng(0).integers(0, 256, (256, 384, 3), dtype=np.uint8)
    ours = encoder.encode(pixels).mean
    monkeypatch.setattr(vae_layers, "is_slow_in_torch", lambda _: False)
    stock = encoder.encode(pixels).mean
    assert (ours - stock).abs().max() <= 0.01 * stock.abs().max()  # TF32's mantissa has 10 bits
