from __future__ import annotations

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from forge.pictures import noise, smooth
from lpw_sdxl.imaging.mask import MaskOptions, binarize, make_mask
from lpw_sdxl.imaging.picture import Picture
from lpw_sdxl.imaging.repaint import Region, find_region, paste_back
from lpw_sdxl.imaging.resizing import resize
from lpw_sdxl.schema import ImageSize, ResizeMode


def mask_of(size: ImageSize, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def test_the_region_is_the_mask_with_padding_grown_to_the_ratio() -> None:
    mask = mask_of(ImageSize(400, 600), 100, 200, 110, 230)
    assert find_region(mask, ImageSize(64, 64), 0) == Region(90, 200, 120, 230)
    assert find_region(mask, ImageSize(64, 64), 16) == Region(74, 184, 136, 246)
    assert find_region(mask, ImageSize(128, 64), 0) == Region(75, 200, 135, 230)
    assert find_region(mask, ImageSize(64, 512), 0) == Region(100, 175, 110, 255)


def test_a_region_moves_rather_than_leave_the_picture() -> None:
    mask = mask_of(ImageSize(400, 600), 0, 560, 10, 600)
    assert find_region(mask, ImageSize(64, 64), 0) == Region(0, 560, 40, 600)
    assert find_region(mask, ImageSize(8, 64), 0) == Region(0, 520, 10, 600)


def test_a_region_without_room_for_the_ratio_is_as_large_as_the_picture_allows() -> None:
    mask = mask_of(ImageSize(40, 600), 10, 100, 20, 500)
    assert find_region(mask, ImageSize(64, 64), 8) == Region(0, 92, 40, 508)


def test_a_black_mask_has_no_region() -> None:
    assert find_region(np.zeros((40, 40), np.uint8), ImageSize(64, 64), 32) is None


SIDES = st.integers(1, 90)


@given(st.data(), SIDES, SIDES, st.integers(0, 40), st.tuples(SIDES, SIDES))
def test_the_region_is_diffusers(
    data: st.DataObject, height: int, width: int, padding: int, target: tuple[int, int]
) -> None:
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    mask = mask_of(ImageSize(height, width), top, left, bottom, right)
    size = ImageSize(*target)
    region = find_region(mask, size, padding)
    x1, y1, x2, y2 = VaeImageProcessor.get_crop_region(
        Image.fromarray(mask), size.width, size.height, padding
    )
    assert region == Region(y1, x1, y2, x2)
    assert region.cut(mask).any()
    assert region.size == region.cut(mask).shape


@pytest.mark.parametrize("size", [ImageSize(64, 64), ImageSize(96, 40)], ids=str)
@pytest.mark.parametrize("place", [(90, 100, 130, 180), (0, 0, 9, 7), (5, 390, 295, 400)])
def test_what_is_painted_of_a_region_is_what_diffusers_paints(
    place: tuple[int, int, int, int], size: ImageSize
) -> None:
    picture, mask = noise(300, 400, 3).astype(np.uint8), mask_of(ImageSize(300, 400), *place)
    images, masks = (
        VaeImageProcessor(resample="lanczos"),
        VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True),
    )
    box = masks.get_crop_region(Image.fromarray(mask), size.width, size.height, pad=10)
    options = {"crops_coords": box, "resize_mode": "fill"}
    right = images.preprocess(Image.fromarray(picture), *size, **options)[0].permute(1, 2, 0)
    right_mask = masks.preprocess(Image.fromarray(mask), *size, **options)[0, 0]
    region = find_region(mask, size, 10)
    assert region is not None
    painted = resize(region.cut(picture), size, ResizeMode.FILL)
    np.testing.assert_allclose(painted / 127.5 - 1, right.numpy(), atol=1e-6)
    repainted = binarize(resize(region.cut(mask), size, ResizeMode.FILL))
    np.testing.assert_array_equal(repainted, right_mask.numpy() == 1)


def test_outside_the_mask_the_original_stays_bit_for_bit() -> None:
    original, painted = noise(64, 96, 3).astype(np.uint8), smooth(64, 96)
    square = mask_of(ImageSize(64, 96), 20, 30, 50, 70)
    picture = Picture(np.repeat(square[..., None], 3, axis=2))
    mask = make_mask(picture, ImageSize(64, 96), MaskOptions(blur=3))
    result = paste_back(original, painted, mask, None)
    assert {0, 255} < {*mask.flat}
    np.testing.assert_array_equal(result[mask == 0], original[mask == 0])
    np.testing.assert_array_equal(result[mask == 255], painted[mask == 255])
    share = mask[..., None] / 255
    right = original * (1 - share) + painted * share
    assert np.abs(result - right).max() <= 1


def test_a_region_is_cut_painted_and_pasted_back_into_its_place() -> None:
    """What is painted is the region itself, resized: it has to come back to where it was."""
    original = smooth(300, 400)
    mask = mask_of(ImageSize(300, 400), 100, 120, 160, 220)
    size = ImageSize(64, 128)
    region = find_region(mask, size, 20)
    assert region is not None
    painted = resize(region.cut(original), size, ResizeMode.FILL)
    result = paste_back(original, painted, mask, region)
    assert result.shape == original.shape
    np.testing.assert_array_equal(result[mask == 0], original[mask == 0])
    assert np.abs(result.astype(int) - original).max() <= 3
    other = paste_back(original, 255 - painted, mask, region)
    np.testing.assert_array_equal(other[mask == 0], original[mask == 0])
    assert (other[mask == 255] != original[mask == 255]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("ratio", [(64, 64), (128, 64), (64, 256)])
def test_ten_repaints_elsewhere_leave_the_first_pixels(ratio: tuple[int, int]) -> None:
    first = noise(200, 300, 3).astype(np.uint8)
    chance = np.random.default_rng(0)
    picture, ever = first, np.zeros(first.shape[:2], bool)
    for _ in range(10):
        top, left = chance.integers(0, 150), chance.integers(0, 250)
        square = mask_of(ImageSize(200, 300), top, left, top + 40, left + 30)
        source = Picture(np.repeat(square[..., None], 3, axis=2))
        mask = make_mask(source, ImageSize(200, 300), MaskOptions(blur=4))
        region = find_region(mask, ImageSize(*ratio), 16)
        painted = chance.integers(0, 256, (*ratio, 3), dtype=np.uint8)
        picture = paste_back(picture, painted, mask, region)
        ever |= mask > 0
    np.testing.assert_array_equal(picture[~ever], first[~ever])
    assert not ever.all()
