from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lpw_sdxl.diffusion.decoder import Decoder, Pixels
from lpw_sdxl.diffusion.encoder import Encoder
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.errors import GenerationError
from lpw_sdxl.schema import ImageSize

NEVER = 2**40  # pixels: nothing is tiled above so many


def draw_pixels(height: int = 64, width: int = 64, seed: int = 0) -> Pixels:
    drawn = np.random.default_rng(seed)
    return drawn.integers(0, 256, (height, width, 3), dtype=np.uint8)


def normalise(pixels: Pixels) -> torch.Tensor:
    return torch.tensor(pixels).permute(2, 0, 1)[None] / 127.5 - 1


def bits(vae: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in vae.state_dict().items()}


def make_it_overflow_in_half(vae: Any) -> None:
    """A VAE whose weights fit into float16, but whose encoder's activations do not."""
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(60_000)
        vae.encoder.conv_in.bias.mul_(60_000)


def count_encoder_runs(vae: Any) -> list[torch.Size]:
    runs: list[torch.Size] = []
    vae.encoder.register_forward_pre_hook(lambda _, inputs: runs.append(inputs[0].shape))
    return runs


@torch.inference_mode()
def test_a_sample_is_that_of_diffusers(vae: Any) -> None:
    pixels = draw_pixels(64, 96)
    expected = vae.encode(normalise(pixels)).latent_dist.sample(seeded_generator(3))
    ours = Encoder(vae, NEVER).encode(pixels)
    noise = draw_noise(ImageSize(64, 96), seeded_generator(3))
    assert ours.mean.shape == ours.deviation.shape == (1, 4, 8, 12)
    assert ours.mean.dtype == torch.float32
    torch.testing.assert_close(ours.sample(noise), expected * vae.config.scaling_factor)
    assert not torch.equal(ours.sample(noise), ours.mean)


@torch.inference_mode()
def test_hidden_pixels_are_in_the_middle_between_black_and_white(vae: Any) -> None:
    pixels = draw_pixels(64, 96)
    hidden = np.zeros((64, 96), np.bool_)
    hidden[10:30, 50:] = True
    shown = normalise(pixels)
    shown[:, :, 10:30, 50:] = 0
    expected = vae.encode(shown).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(Encoder(vae, NEVER).encode(pixels, hidden).mean, expected)


def test_pixels_that_can_not_be_written_to_are_encoded(vae: Any) -> None:
    pixels = draw_pixels()
    pixels.flags.writeable = False  # as Pillow gives them
    before = pixels.copy()
    encoder = Encoder(vae, NEVER)
    written = encoder.encode(pixels.copy(), np.ones((64, 64), np.bool_))
    torch.testing.assert_close(
        encoder.encode(pixels, np.ones((64, 64), np.bool_)).mean, written.mean
    )
    np.testing.assert_array_equal(pixels, before)


def test_another_picture_has_another_distribution_and_the_same_one_the_same(vae: Any) -> None:
    encoder = Encoder(vae, NEVER)
    one, again, other = (encoder.encode(draw_pixels(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one.mean, again.mean)
    assert torch.equal(one.deviation, again.deviation)
    assert not torch.allclose(one.mean, other.mean)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_that_does_not_overflow_stays(vae: Any, dtype: torch.dtype) -> None:
    exact = Encoder(vae, NEVER).encode(draw_pixels())
    runs = count_encoder_runs(vae.to(dtype))
    rounded = Encoder(vae, NEVER).encode(draw_pixels())
    assert rounded.mean.dtype == rounded.deviation.dtype == torch.float32
    assert (exact.mean - rounded.mean).abs().max() < 0.05 * exact.mean.abs().max()
    assert len(runs) == 1


def test_an_overflow_in_half_precision_is_encoded_in_float32_and_changes_no_weight(
    vae: Any,
) -> None:
    make_it_overflow_in_half(vae)
    vae.to(torch.float16)
    before = bits(vae)
    runs = count_encoder_runs(vae)
    half = Encoder(vae, NEVER).encode(draw_pixels())
    assert len(runs) == 2
    for name, tensor in vae.state_dict().items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, before[name]), name
    exact = Encoder(vae.float(), NEVER).encode(draw_pixels())
    assert torch.equal(half.mean, exact.mean)
    assert torch.equal(half.deviation, exact.deviation)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_latents_that_are_not_finite_are_an_error(vae: Any, dtype: torch.dtype) -> None:
    with torch.no_grad():
        vae.encoder.conv_out.bias[1] = float("inf")
    vae.to(dtype)
    with pytest.raises(GenerationError, match="the picture can't be encoded"):
        Encoder(vae, NEVER).encode(draw_pixels())
    assert vae.dtype == dtype


def test_only_larger_pictures_are_tiled_and_by_size_alone(vae: Any) -> None:
    encoder = Encoder(vae, tile_above_pixels=128 * 192)
    runs = count_encoder_runs(vae)
    counts = []
    for height, width in [(192, 128), (192, 192), (128, 192), (64, 64)]:
        runs.clear()
        encoded = encoder.encode(draw_pixels(height, width))
        assert encoded.mean.shape == (1, 4, height // 8, width // 8)
        counts.append(len(runs))
    assert counts == [1, 4, 1, 1]


def test_tiles_can_be_asked_for_and_change_the_latents_little(vae: Any) -> None:
    pixels = draw_pixels(256, 200)
    encoder = Encoder(vae, NEVER)
    runs = count_encoder_runs(vae)
    whole = encoder.encode(pixels).mean
    tiled = encoder.encode(pixels, in_tiles=True).mean
    assert len(runs) == 1 + 3 * 3
    assert whole.shape == tiled.shape == (1, 4, 32, 25)
    assert not torch.equal(whole, tiled)
    assert np.corrcoef(whole.flatten(), tiled.flatten())[0, 1] > 0.95


def test_a_decoder_of_the_same_vae_tiles_by_its_own_images(vae: Any) -> None:
    decoder, encoder = Decoder(vae, 128 * 192), Encoder(vae, 128 * 192)
    latents = draw_noise(ImageSize(192, 128), seeded_generator(0))
    alone = decoder.decode(latents)
    encoder.encode(draw_pixels(192, 192))
    np.testing.assert_array_equal(decoder.decode(latents), alone)
