"""A VAE in half precision: a smaller stream gives the same pictures, and so do fused blocks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor

from diffusion.counted import CountedOperations, calls_of
from lpw_sdxl.diffusion.decoder import Decoder
from lpw_sdxl.diffusion.encoder import Encoder
from lpw_sdxl.diffusion.fused_vae import STREAM_SCALE, fuse_vae, scale_down_stream
from lpw_sdxl.diffusion.kernels.trial import relative_error

LARGEST_FLOAT16 = 65_504


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def note_peaks(vae: Any) -> dict[str, float]:
    """Note the largest number behind every residual block from now on."""
    peaks: dict[str, float] = {}
    for name, module in vae.named_modules():
        if isinstance(module, ResnetBlock2D):
            module.register_forward_hook(
                lambda _, __, output, name=name: peaks.update({name: output.abs().max().item()})
            )
    return peaks


def enlarge_stream(vae: Any, peak: float) -> None:
    """Make a stream too large for float16, as that of SDXL's own VAE is: 4 to 8 times."""
    scale_down_stream(vae, 2.0 ** np.ceil(np.log2(4 * LARGEST_FLOAT16 / peak)))


@torch.inference_mode()
def test_every_block_is_a_sixteenth_and_the_result_is_the_same(vae: Any) -> None:
    vae.double()
    latents, pictures = drawn(1, 4, 8, 6).double(), drawn(1, 3, 64, 48).double()
    scaled = copy.deepcopy(vae)
    scale_down_stream(scaled)
    before, peaks = note_peaks(vae), note_peaks(scaled)
    decoded = vae.decode(latents).sample
    encoded = vae.encode(pictures).latent_dist.parameters
    assert relative_error(scaled.decode(latents).sample, decoded) <= 1e-13
    assert relative_error(scaled.encode(pictures).latent_dist.parameters, encoded) <= 1e-13
    assert peaks.keys() == before.keys()
    for name, peak in peaks.items():
        assert peak / before[name] == pytest.approx(STREAM_SCALE, rel=1e-9)


@torch.inference_mode()
def test_a_vae_that_overflows_float16_draws_the_same_picture_when_scaled_down(vae: Any) -> None:
    latents = drawn(1, 4, 8, 6)
    peaks = note_peaks(vae)
    expected = Decoder(vae, 2**40).decode(latents)
    enlarge_stream(vae, max(peaks.values()))
    half = copy.deepcopy(vae).half()
    assert not torch.isfinite(half.decode(latents.half()).sample).all()
    scale_down_stream(half)
    decoded = half.decode(latents.half()).sample
    assert torch.isfinite(decoded).all()
    found = Decoder(half, 2**40).decode(latents)
    assert abs(found.astype(int) - expected.astype(int)).max() <= 2  # of 255, in float16
    assert abs(found.astype(int) - expected.astype(int)).mean() < 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_fused_blocks_are_no_farther_from_float32_than_plain_ones(
    vae: Any, dtype: torch.dtype
) -> None:
    latents, pictures = drawn(1, 4, 8, 6), drawn(1, 3, 64, 48)

    def run(one: Any, latents: Tensor, pictures: Tensor) -> list[Tensor]:
        return [one.decode(latents).sample, one.encode(pictures).latent_dist.parameters]

    exact = run(vae, latents, pictures)
    half = copy.deepcopy(vae).to(dtype)
    plain = run(half, latents.to(dtype), pictures.to(dtype))
    operations = CountedOperations()
    fuse_vae(half, operations)
    fused = run(half, latents.to(dtype), pictures.to(dtype))
    assert dict(operations.counts) == calls_of(half)
    for ours, theirs, expected in zip(fused, plain, exact, strict=True):
        assert relative_error(ours, expected) <= 1.1 * relative_error(theirs, expected)


@torch.inference_mode()
def test_in_float32_blocks_are_computed_as_before(vae: Any) -> None:
    latents = drawn(1, 4, 8, 6)
    expected = Decoder(vae, 2**40).decode(latents)
    operations = CountedOperations()
    fuse_vae(vae, operations)
    found = Decoder(vae, 2**40).decode(latents)
    assert operations.counts == {}
    assert abs(found.astype(int) - expected.astype(int)).max() <= 1


@torch.inference_mode()
def test_a_picture_that_still_overflows_goes_through_the_fused_vae_in_float32(vae: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    peaks = note_peaks(vae.encoder)
    expected = Encoder(vae, 2**40).encode(pixels).mean
    enlarge_stream(vae, max(peaks.values()))
    half = vae.half()
    operations = CountedOperations()
    fuse_vae(half, operations)
    found = Encoder(half, 2**40).encode(pixels).mean
    assert operations.counts["group_norm"] > 0
    assert relative_error(found, expected) <= 1e-2
    assert half.dtype == torch.float16
