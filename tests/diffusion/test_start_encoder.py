from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lpw_sdxl.diffusion.encoder import Encoder
from lpw_sdxl.diffusion.start import (
    InpaintingStart,
    MaskedStart,
    NoiseStart,
    PictureStart,
    Start,
)
from lpw_sdxl.diffusion.start_encoder import (
    StartEncoder,
    StartPicture,
    UnfinishedStart,
    scale_and_round,
)
from lpw_sdxl.schema import ImageSize, MaskedContent

NEVER = 2**40  # pixels: nothing is tiled above so many
SIZE = ImageSize(64, 96)
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def make_mask() -> np.ndarray[Any, Any]:
    """Levels just below half but for a rectangle of one cell and a half, at half."""
    mask = np.full(SIZE, 127, np.uint8)
    mask[16:28, 32:44] = 128
    return mask


def finish(start: UnfinishedStart, *, in_tiles: bool = False) -> Start:
    """Encode what is left, and make the start."""
    while not start.is_encoded:
        start.encode_next(in_tiles=in_tiles)
    return start.make()


@pytest.fixture
def runs(vae: Any) -> list[torch.Tensor]:
    """What the VAE's encoder is given, from now on."""
    given: list[torch.Tensor] = []
    vae.encoder.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    return given


def test_a_text_needs_no_encoding(vae: Any, runs: list[torch.Tensor]) -> None:
    encoder = StartEncoder(Encoder(vae, NEVER), 4)
    start = encoder.begin_text(SIZE)
    assert start.is_encoded
    assert start.make() == NoiseStart()
    assert runs == []


def test_a_text_for_an_inpainting_unet_is_a_grey_picture_of_which_all_is_masked(
    vae: Any, runs: list[torch.Tensor]
) -> None:
    encoder = StartEncoder(Encoder(vae, NEVER), 9)
    assert not encoder.begin_text(SIZE).is_encoded
    start = finish(encoder.begin_text(SIZE))
    assert isinstance(start, InpaintingStart)
    assert encoder.begin_text(SIZE).is_encoded
    assert start.mask.shape == (1, 1, 8, 12)
    assert start.mask.all()
    assert start.picture is None
    [given] = runs
    assert given.shape == (1, 3, *SIZE)
    assert not given.any()


def test_a_mask_is_where_the_latents_are_after_the_vae_was_moved_away(vae: Any) -> None:
    encoder = StartEncoder(Encoder(vae, NEVER), 9)
    finish(encoder.begin_text(SIZE))
    vae.to("meta")  # as by offloading: the next prompts are encoded meanwhile
    start = finish(encoder.begin_text(SIZE))
    assert isinstance(start, InpaintingStart)
    assert start.mask.device == start.hidden.mean.device == torch.device("cpu")


def test_the_grey_of_the_last_size_is_encoded_once(vae: Any, runs: list[torch.Tensor]) -> None:
    encoder = StartEncoder(Encoder(vae, NEVER), 9)
    starts = [finish(encoder.begin_text(SIZE)) for _ in range(3)]
    assert len(runs) == 1
    assert {start.hidden.mean.data_ptr() for start in starts if hasattr(start, "hidden")} == {
        starts[0].hidden.mean.data_ptr()  # type: ignore[attr-defined]
    }
    finish(encoder.begin_picture(StartPicture(PIXELS), is_seen=False))
    assert len(runs) == 1
    finish(encoder.begin_text(ImageSize(96, 64)))
    finish(encoder.begin_text(SIZE))
    assert len(runs) == 3


def test_tiles_where_memory_is_short_leave_later_pictures_as_they_would_be(vae: Any) -> None:
    size = ImageSize(192, 192)
    first = StartEncoder(Encoder(vae, NEVER), 9)
    tiled = finish(first.begin_text(size), in_tiles=True)
    whole = finish(first.begin_text(size))
    fresh = finish(StartEncoder(Encoder(vae, NEVER), 9).begin_text(size))
    means = [start.hidden.mean for start in (tiled, whole, fresh)]  # type: ignore[attr-defined]
    assert torch.equal(means[1], means[2])
    assert not torch.equal(means[0], means[1])


def test_a_picture_is_encoded_once(vae: Any, runs: list[torch.Tensor]) -> None:
    encoder = Encoder(vae, NEVER)
    start = finish(StartEncoder(encoder, 4).begin_picture(StartPicture(PIXELS)))
    assert isinstance(start, PictureStart)
    assert len(runs) == 1
    assert torch.equal(start.picture.mean, encoder.encode(PIXELS).mean)


def test_a_mask_has_the_cells_whose_top_left_pixel_is_at_half_or_above(
    vae: Any, runs: list[torch.Tensor]
) -> None:
    picture = StartPicture(PIXELS, make_mask(), MaskedContent.LATENT_NOTHING)
    start = finish(StartEncoder(Encoder(vae, NEVER), 4).begin_picture(picture))
    assert isinstance(start, MaskedStart)
    assert start.mask.dtype == torch.bool
    assert [*map(tuple, start.mask[0, 0].nonzero().tolist())] == [(2, 4), (2, 5), (3, 4), (3, 5)]
    assert start.content is MaskedContent.LATENT_NOTHING
    assert len(runs) == 1  # what is not masked is not encoded: a UNet of 4 channels never sees it


@pytest.mark.parametrize("is_seen", [False, True])
def test_an_inpainting_unet_is_shown_a_picture_whose_masked_pixels_are_grey(
    vae: Any, runs: list[torch.Tensor], is_seen: bool
) -> None:
    picture = StartPicture(PIXELS, make_mask())
    start = finish(StartEncoder(Encoder(vae, NEVER), 9).begin_picture(picture, is_seen=is_seen))
    assert isinstance(start, InpaintingStart)
    assert (start.picture is not None) == is_seen
    assert len(runs) == 1 + is_seen
    shown = runs[-1][0].permute(1, 2, 0)
    normal = torch.tensor(PIXELS) / 127.5 - 1
    repainted = torch.tensor(make_mask()) == 128
    assert not shown[repainted].any()
    torch.testing.assert_close(shown[~repainted], normal[~repainted])
    assert start.mask.sum() == 4


@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_a_cell_that_is_half_masked_is_rounded_as_by_pillow_and_a1111(level: int) -> None:
    """Half of 255 is 127.5, which Pillow takes for 128, and A1111 rounds 128 / 255 to 1."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 36:60] = 255
    mask[32:, 76:] = level
    scaled = Image.fromarray(mask).convert("RGB").resize((12, 8))
    expected = np.around(np.asarray(scaled, np.float32)[..., 0] / 255) == 1
    assert expected[:4].tolist() == [[False] * 4 + [True] * 4 + [False] * 4] * 4
    np.testing.assert_array_equal(scale_and_round(mask)[0, 0].numpy(), expected)
