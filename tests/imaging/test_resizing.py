from __future__ import annotations

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from forge.pictures import noise, smooth
from lpw_sdxl.imaging.resizing import resize, size_to_draw
from lpw_sdxl.schema import ImageSize, ResizeMode

DIFFUSERS_MODES = {
    ResizeMode.STRETCH: "default",
    ResizeMode.CROP: "crop",
    ResizeMode.FILL: "fill",
}
OLD_SIZES = [(40, 56), (33, 97), (97, 33), (128, 128), (20, 51), (120, 40), (64, 65)]
NEW_SIZES = [ImageSize(64, 64), ImageSize(48, 96), ImageSize(96, 40)]


@pytest.mark.parametrize("new", NEW_SIZES, ids=str)
@pytest.mark.parametrize("old", OLD_SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("mode", ResizeMode)
def test_a_picture_is_resized_as_by_diffusers(
    mode: ResizeMode, old: tuple[int, int], new: ImageSize
) -> None:
    pixels = noise(*old, 3).astype(np.uint8)
    right = VaeImageProcessor(resample="lanczos").resize(
        Image.fromarray(pixels), new.height, new.width, DIFFUSERS_MODES[mode]
    )
    result = resize(pixels, new, mode)
    assert result.shape == (*new, 3)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, np.asarray(right))


@pytest.mark.parametrize("is_wide", [True, False])
def test_of_the_longest_picture_the_middle_is_kept(is_wide: bool) -> None:
    """Black and white meet in its middle; as a whole it would have a gigabyte."""
    picture = np.repeat(np.uint8([0, 255]), 8192)[None, :, None].repeat(8, axis=0).repeat(3, axis=2)
    size = ImageSize(512, 512)
    long = picture if is_wide else picture.swapaxes(0, 1)
    result = resize(np.ascontiguousarray(long), size, ResizeMode.CROP).astype(int)
    row = result[5, :, 1] if is_wide else result[:, 5, 1]
    assert set(row[:32]) == {0}
    assert set(row[-32:]) == {255}
    assert np.abs(row - (255 - row[::-1])).max() <= 1


@pytest.mark.parametrize("mode", ResizeMode)
def test_a_mask_is_resized_as_a_grey_picture_is(mode: ResizeMode) -> None:
    grey = smooth(50, 90)[..., 0]
    size = ImageSize(64, 64)
    picture = resize(np.repeat(grey[..., None], 3, axis=2), size, mode)
    np.testing.assert_array_equal(resize(grey, size, mode), picture[..., 0])


@pytest.mark.parametrize("mode", ResizeMode)
def test_a_picture_of_the_size_keeps_its_pixels(mode: ResizeMode) -> None:
    pixels = noise(64, 40, 3).astype(np.uint8)
    np.testing.assert_array_equal(resize(pixels, ImageSize(64, 40), mode), pixels)


def test_cropping_keeps_the_middle_and_filling_smears_the_edges() -> None:
    """Of a picture of three bars, red, green and blue."""
    bars = np.repeat(np.eye(3, dtype=np.uint8)[None] * 255, 24, axis=1).repeat(24, axis=0)
    assert (resize(bars, ImageSize(24, 8), ResizeMode.CROP) == (0, 255, 0)).all()
    filled = resize(bars, ImageSize(40, 88), ResizeMode.FILL)
    assert (filled[:, :8] == filled[:, 8:9]).all()
    upright = resize(bars.swapaxes(0, 1), ImageSize(88, 24), ResizeMode.FILL)
    assert (upright[:8] == (255, 0, 0)).all()
    assert (upright[-8:] == (0, 0, 255)).all()


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 16_384), st.integers(1, 3)),
    st.booleans(),
    st.sampled_from(ResizeMode),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_any_shape_gets_any_size(
    old: tuple[int, int], is_wide: bool, mode: ResizeMode, blocks: tuple[int, int]
) -> None:
    pixels = np.full((*(old[::-1] if is_wide else old), 3), 77, np.uint8)
    new = ImageSize(*(8 * side for side in blocks))
    result = resize(pixels, new, mode)
    assert result.shape == (*new, 3)
    assert (result == 77).all()


def test_a_size_is_rounded_down_to_whole_latent_cells() -> None:
    assert size_to_draw(ImageSize(1023, 777)) == (1016, 776)
    assert size_to_draw(ImageSize(1024, 7)) == (1024, 0)
