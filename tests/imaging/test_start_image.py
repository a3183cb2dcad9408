"""A request's picture and mask, brought to the size of its job."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging.masked_fill import fill_masked
from lpw_sdxl.imaging.picture import PictureLimits
from lpw_sdxl.imaging.resizing import resize
from lpw_sdxl.imaging.start_image import (
    StartImage,
    default_size,
    read_start_image,
)
from lpw_sdxl.schema import GenerationRequest, ImageSize, ResizeMode
from tests.forge.scenes import Pixels, draw_mask, draw_picture, to_file

LIMITS = PictureLimits()
SIZE = ImageSize(72, 104)
PICTURE, MASK = draw_picture(SIZE), draw_mask(SIZE)


def request(picture: Pixels = PICTURE, mask: Pixels | None = None, **fields: Any) -> Any:
    files = {"image": to_file(picture)} | ({} if mask is None else {"mask_image": to_file(mask)})
    return GenerationRequest.model_validate({"prompt": "a"} | files | fields)


def read(picture: Pixels = PICTURE, mask: Pixels | None = None, **fields: Any) -> StartImage:
    return read_start_image(request(picture, mask, **fields), SIZE, LIMITS)


@pytest.mark.parametrize(
    ("picture", "fields", "size"),
    [
        ((72, 104), {}, (72, 104)),
        ((79, 111), {}, (72, 104)),
        ((79, 111), {"width": 512}, (72, 512)),
        ((79, 111), {"height": 64}, (64, 104)),
        ((20, 30), {"height": 64, "width": 96}, (64, 96)),
        ((20, 80), {"height": 64}, (64, 80)),
    ],
)
def test_a_side_that_is_not_named_is_the_pictures_rounded_down(
    picture: tuple[int, int], fields: dict[str, int], size: tuple[int, int]
) -> None:
    assert default_size(request(draw_picture(ImageSize(*picture)), **fields), LIMITS) == size


@pytest.mark.parametrize(("picture", "fields"), [((63, 100), {}), ((20, 80), {"width": 64})])
def test_a_picture_that_is_too_small_to_name_the_size_is_refused(
    picture: tuple[int, int], fields: dict[str, int]
) -> None:
    with pytest.raises(InvalidRequestError, match=r"image is \d+x\d+ pixels.*less than 64") as no:
        default_size(request(draw_picture(ImageSize(*picture)), **fields), LIMITS)
    assert no.value.field == "image"


@pytest.mark.parametrize("mode", list(ResizeMode))
def test_a_picture_without_a_mask_is_resized_and_stands_for_itself(mode: ResizeMode) -> None:
    picture = draw_picture(ImageSize(50, 50))
    start = read(picture, resize_mode=mode)
    np.testing.assert_array_equal(start.pixels, resize(picture, SIZE, mode))
    assert start.mask is None
    assert start.surroundings is None
    assert start.nbytes == 72 * 104 * 3


def test_a_masked_picture_is_put_back_where_the_mask_is_black() -> None:
    start = read(mask=MASK)
    assert start.mask is not None
    np.testing.assert_array_equal(start.pixels, PICTURE)
    np.testing.assert_array_equal(start.mask, MASK)
    painted = draw_picture(SIZE, 1)
    assert start.surroundings is not None
    result = start.surroundings.put_back(painted)
    np.testing.assert_array_equal(result[MASK == 0], PICTURE[MASK == 0])
    np.testing.assert_array_equal(result[MASK == 255], painted[MASK == 255])
    assert start.nbytes == 72 * 104 * 4  # of arrays in two places, once


def test_without_paste_back_what_was_painted_is_the_answer() -> None:
    start = read(mask=MASK, paste_back=False)
    assert start.mask is not None
    assert start.surroundings is None


def test_a_mask_is_resized_with_its_picture() -> None:
    picture, mask = draw_picture(ImageSize(50, 80)), draw_mask(ImageSize(50, 80))
    start = read(picture, mask, resize_mode="crop")
    assert start.mask is not None
    np.testing.assert_array_equal(start.mask, resize(mask, SIZE, ResizeMode.CROP))
    assert start.surroundings is not None
    assert start.surroundings.put_back(start.pixels).shape == (72, 104, 3)


def test_filled_content_is_painted_from_and_the_original_is_put_back() -> None:
    start = read(mask=MASK, masked_content="fill")
    np.testing.assert_array_equal(start.pixels, fill_masked(PICTURE, MASK))
    assert (start.pixels[MASK == 255] != PICTURE[MASK == 255]).any()
    assert start.surroundings is not None
    np.testing.assert_array_equal(start.surroundings.original, PICTURE)
    assert start.nbytes == 72 * 104 * (3 + 1 + 3)


def test_options_of_the_mask_are_applied() -> None:
    plain, inverted, soft = (
        read(mask=MASK, **options).mask
        for options in ({}, {"invert_mask": True}, {"mask_blur": 4.0})
    )
    assert plain is not None
    assert inverted is not None
    assert soft is not None
    np.testing.assert_array_equal(inverted, 255 - plain)
    assert 0 < np.count_nonzero(soft != plain) < soft.size


def test_of_a_part_alone_the_answer_has_the_pictures_size() -> None:
    whole = draw_picture(ImageSize(300, 400))
    mask = np.zeros((300, 400), np.uint8)
    mask[100:120, 200:240] = 255
    start = read(whole, mask, only_masked=True, only_masked_padding=10, paste_back=False)
    assert start.pixels.shape == (72, 104, 3)
    assert start.mask is not None
    assert start.mask.shape == (72, 104)
    surroundings = start.surroundings
    assert surroundings is not None
    assert surroundings.region is not None
    assert surroundings.region.cut(mask).any()
    # Painting what is there changes next to nothing, and only where the mask is.
    result = surroundings.put_back(start.pixels)
    np.testing.assert_array_equal(result[mask == 0], whole[mask == 0])
    assert np.abs(result.astype(int) - whole).max() <= 24


@pytest.mark.parametrize("sides", [(64, 16_384), (16_384, 64)])
def test_a_picture_too_long_for_a_webp_answer_is_refused_before_it_is_painted(
    sides: tuple[int, int],
) -> None:
    long = np.zeros((*sides, 3), np.uint8)
    mask = np.full(sides, 255, np.uint8)
    fields = {"only_masked": True, "image_format": "webp"}
    with pytest.raises(InvalidRequestError, match="webp can have 16383 pixels a side") as no:
        read(long, mask, **fields)
    assert no.value.field == "image_format"
    read(long[:16_383, :16_383], mask[:16_383, :16_383], **fields)
    read(long, mask, **fields | {"image_format": "jpeg"})
    read(long, mask, **fields | {"only_masked": False})  # the answer has the size that is painted


def test_a_black_mask_leaves_a_part_alone_nothing() -> None:
    nothing = np.zeros(SIZE, np.uint8)
    with pytest.raises(InvalidRequestError, match="mask_image is all black") as no:
        read(mask=nothing, only_masked=True)
    assert no.value.field == "mask_image"
    surroundings = read(mask=nothing).surroundings  # all of it is kept, which is no mistake
    assert surroundings is not None
    np.testing.assert_array_equal(surroundings.put_back(255 - PICTURE), PICTURE)


@pytest.mark.parametrize("field", ["image", "mask_image"])
def test_a_file_that_is_no_picture_is_refused_by_its_field(field: str) -> None:
    wanted = request(mask=MASK).model_copy(update={field: b"GIF89a"})
    with pytest.raises(InvalidRequestError) as no:
        read_start_image(wanted, SIZE, LIMITS)
    assert no.value.field == field
