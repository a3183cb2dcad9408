from __future__ import annotations

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from forge.pictures import noise
from lpw_sdxl.imaging.mask import MaskOptions, binarize, make_mask
from lpw_sdxl.imaging.picture import Picture
from lpw_sdxl.schema import ImageSize

SIZE = ImageSize(64, 96)
PLAIN = MaskOptions()


def picture_of(levels: np.ndarray, alpha: np.ndarray | None = None) -> Picture:
    return Picture(np.repeat(levels[..., None], 3, axis=2).astype(np.uint8), alpha)


def square(height: int = 64, width: int = 96) -> np.ndarray:
    levels = np.zeros((height, width), np.uint8)
    levels[height // 4 : height // 2, width // 4 : width // 2] = 255
    return levels


def test_white_is_repainted_and_grey_is_kept_as_grey() -> None:
    levels = noise(*SIZE, 1)[..., 0].astype(np.uint8)
    np.testing.assert_array_equal(make_mask(picture_of(levels), SIZE, PLAIN), levels)


def test_colours_count_by_their_luminance() -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    mask = make_mask(Picture(colours), ImageSize(1, 3), PLAIN)
    assert mask.tolist() == [[76, 150, 29]]


def test_where_a_mask_is_transparent_anywhere_its_opaque_part_is_repainted() -> None:
    """Its colours say nothing then: white on transparent, as editors save a brush's strokes."""
    white = np.full(SIZE, 255, np.uint8)
    mask = make_mask(picture_of(white, alpha=square()), SIZE, PLAIN)
    np.testing.assert_array_equal(mask, square())


def test_a_mask_of_another_size_is_stretched_to_the_picture() -> None:
    mask = make_mask(picture_of(square(128, 128)), SIZE, PLAIN)
    assert mask.shape == SIZE
    assert (binarize(mask) == binarize(square())).all()


def test_an_inverted_mask_repaints_what_was_kept() -> None:
    mask = make_mask(picture_of(square()), SIZE, MaskOptions(is_inverted=True))
    np.testing.assert_array_equal(mask, 255 - square())


@pytest.mark.parametrize("blur", [1, 4, 12.5])
def test_a_mask_is_blurred_and_binarized_as_by_diffusers(blur: float) -> None:
    levels = square()
    processor = VaeImageProcessor(
        do_normalize=False, do_binarize=True, do_convert_grayscale=True, resample="lanczos"
    )
    right = processor.blur(Image.fromarray(levels), blur)
    mask = make_mask(picture_of(levels), SIZE, MaskOptions(blur=blur))
    np.testing.assert_array_equal(mask, np.asarray(right))
    binary = processor.preprocess(right, *SIZE)[0, 0].numpy()
    np.testing.assert_array_equal(binarize(mask), binary == 1)


def test_the_blur_is_a_gaussian_in_pixels() -> None:
    """Of an edge it makes the Gaussian's integral: half at the edge, 84 % one deviation inside."""
    edge = np.zeros((1, 400), np.uint8)
    edge[:, 200:] = 255
    mask = make_mask(picture_of(edge), ImageSize(1, 400), MaskOptions(blur=20))
    between = (mask[0, 1:].astype(int) + mask[0, :-1]) / 2 / 255  # at the borders of pixels
    assert between[199] == pytest.approx(0.5, abs=0.01)
    assert between[219] == pytest.approx(0.841, abs=0.02)
    assert between[179] == pytest.approx(0.159, abs=0.02)
    assert (mask[0, :100] == 0).all()


def test_an_inverted_mask_is_blurred_after_it_is_inverted() -> None:
    options = MaskOptions(is_inverted=True, blur=3)
    mask = make_mask(picture_of(square()), SIZE, options)
    inverted = make_mask(picture_of(255 - square()), SIZE, MaskOptions(blur=3))
    np.testing.assert_array_equal(mask, inverted)
