from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lpw_sdxl.diffusion.decoder import Decoder
from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.vae import SMALL_TILE_PIXELS
from lpw_sdxl.errors import GenerationError
from lpw_sdxl.schema import ImageSize

NEVER = 2**40  # pixels: nothing is tiled above so many


def latents(height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    return draw_noise(ImageSize(height, width), seeded_generator(seed))


def bits(vae: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in vae.state_dict().items()}


def assert_same_bits(vae: Any, before: dict[str, torch.Tensor]) -> None:
    for name, tensor in vae.state_dict().items():
        assert tensor.dtype == before[name].dtype, name
        assert torch.equal(tensor, before[name]), name


def make_it_overflow_in_half(vae: Any) -> None:
    """A VAE like SDXL's own: its weights fit into float16, its activations do not."""
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(20_000)
        vae.decoder.conv_in.bias.mul_(20_000)


def count_decoder_runs(vae: Any) -> list[torch.Size]:
    runs: list[torch.Size] = []
    vae.decoder.register_forward_pre_hook(lambda _, inputs: runs.append(inputs[0].shape))
    return runs


def test_pixels_are_those_of_the_vae(vae: Any) -> None:
    noise = latents(64, 96)
    pixels = Decoder(vae, NEVER).decode(noise)
    with torch.inference_mode():
        decoded = vae.decode(noise / vae.config.scaling_factor).sample
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()[0].permute(1, 2, 0)
    assert pixels.shape == (64, 96, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected.numpy().astype(np.uint8))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_are_an_error(vae: Any, bad: float) -> None:
    spoiled = latents()
    spoiled[0, 1, 2, 3] = bad
    with pytest.raises(GenerationError, match="latents are not finite"):
        Decoder(vae, NEVER).decode(spoiled)


def test_pixels_that_are_not_finite_are_an_error(vae: Any) -> None:
    with torch.no_grad():
        vae.decoder.conv_out.bias[1] = float("inf")
    before = bits(vae)
    with pytest.raises(GenerationError, match="pixels are not finite"):
        Decoder(vae, NEVER).decode(latents())
    assert_same_bits(vae, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_that_does_not_overflow_stays(vae: Any, dtype: torch.dtype) -> None:
    exact = Decoder(vae, NEVER).decode(latents()).astype(int)
    runs = count_decoder_runs(vae.to(dtype))
    rounded = Decoder(vae, NEVER).decode(latents()).astype(int)
    assert np.abs(exact - rounded).mean() < 2
    assert len(runs) == 1


def test_an_overflow_in_half_precision_is_decoded_in_float32_and_changes_no_weight(
    vae: Any,
) -> None:
    make_it_overflow_in_half(vae)
    vae.to(torch.float16)
    before = bits(vae)
    runs = count_decoder_runs(vae)
    pixels = Decoder(vae, NEVER).decode(latents())
    assert len(runs) == 2
    assert_same_bits(vae, before)
    np.testing.assert_array_equal(pixels, Decoder(vae.float(), NEVER).decode(latents()))
    assert pixels.std() > 5  # a picture


def test_an_image_that_overflows_in_float32_too_leaves_the_vae_as_it_was(vae: Any) -> None:
    vae.to(torch.float16)
    with torch.no_grad():
        vae.decoder.conv_out.bias[0] = float("nan")
    before = {name: one.nan_to_num(7.0) for name, one in bits(vae).items()}
    with pytest.raises(GenerationError, match="pixels are not finite"):
        Decoder(vae, NEVER).decode(latents())
    after = {name: one.nan_to_num(7.0) for name, one in bits(vae).items()}
    assert all(torch.equal(after[name], one) for name, one in before.items())
    assert vae.dtype == torch.float16


def test_a_lack_of_memory_on_the_way_to_float32_leaves_the_vae_as_it_was(
    vae: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_it_overflow_in_half(vae)
    vae.to(torch.float16)
    before = bits(vae)
    last = vae.decoder.conv_out
    convert = last._apply
    lacks = [True]

    def lack_memory_once(*arguments: Any) -> Any:
        if lacks.pop():
            lacks.append(False)
            raise MemoryError
        return convert(*arguments)

    monkeypatch.setattr(last, "_apply", lack_memory_once)
    with pytest.raises(MemoryError):
        Decoder(vae, NEVER).decode(latents())
    monkeypatch.undo()
    assert_same_bits(vae, before)
    Decoder(vae, NEVER).decode(latents())


def test_only_larger_images_are_tiled_and_by_size_alone(vae: Any) -> None:
    decoder = Decoder(vae, tile_above_pixels=128 * 192)
    runs = count_decoder_runs(vae)
    counts = []
    for height, width in [(192, 128), (192, 192), (128, 192), (64, 64)]:
        runs.clear()
        assert decoder.decode(latents(height, width)).shape == (height, width, 3)
        counts.append(len(runs))
    assert counts == [1, 4, 1, 1]


def test_tiles_change_the_picture_little(vae: Any) -> None:
    noise = latents(256, 200)
    whole = Decoder(vae, NEVER).decode(noise).astype(int)
    tiled = Decoder(vae, 128 * 128).decode(noise).astype(int)
    assert whole.shape == tiled.shape
    assert not np.array_equal(whole, tiled)
    assert np.abs(whole - tiled).mean() < 8
    assert np.corrcoef(whole.ravel(), tiled.ravel())[0, 1] > 0.95


def of_native_1024(vae: Any) -> Any:
    """The demo's VAE as it would be in a model of 1024 x 1024: only its tiles are larger."""
    vae.tile_sample_min_size, vae.tile_latent_min_size = 1024, 128
    return vae


def test_tiles_are_small_where_a_native_image_does_not_fit(vae: Any) -> None:
    decoder = Decoder(of_native_1024(vae), tile_above_pixels=64 * SMALL_TILE_PIXELS)
    runs = count_decoder_runs(vae)
    pixels = decoder.decode(latents(SMALL_TILE_PIXELS + 8, 64))
    assert pixels.shape == (SMALL_TILE_PIXELS + 8, 64, 3)
    assert len(runs) == 2
    assert max(shape[-2] for shape in runs) == SMALL_TILE_PIXELS // 8


def test_tiles_are_of_the_models_size_where_that_fits(vae: Any) -> None:
    Decoder(of_native_1024(vae), tile_above_pixels=1024 * 1024)
    assert (vae.tile_sample_min_size, vae.tile_latent_min_size) == (1024, 128)
