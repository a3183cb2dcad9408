from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging import ImageRecord, check_fits, encode_image, parameters_text
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageFormat, ImageSize

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def record(**fields: object) -> ImageRecord:
    return ImageRecord(
        request=GenerationRequest.model_validate({"prompt": "a (cat:1.2)", **fields}),
        seed=2**64 - 1,
        size=ImageSize(height=16, width=24),
        scheduler=SchedulerName.EULER_ANCESTRAL,
        model_name="sdxl",
        model_sha256="0123456789abcdef" * 4,
    )


def test_a_png_is_lossless_and_carries_its_seed_and_parameters() -> None:
    made = record(negative_prompt="dög", guidance_scale=7.5)
    image = Image.open(io.BytesIO(encode_image(PIXELS, ImageFormat.PNG, made)))
    np.testing.assert_array_equal(np.asarray(image), PIXELS)
    assert image.info["seed"] == str(2**64 - 1)
    assert image.info["parameters"] == parameters_text(made)


@pytest.mark.parametrize("image_format", ImageFormat)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_nul_is_refused_by_its_field(field: str, image_format: ImageFormat) -> None:
    fields = {"prompt": "a cat", field: "a\0cat", "image_format": image_format.value}
    with pytest.raises(InvalidRequestError, match=f"{field} holds a NUL") as refusal:
        check_fits(record(**fields))
    assert refusal.value.field == field


def test_a_jpeg_of_too_many_words_is_refused_and_a_webp_takes_them() -> None:
    words = "w" * 30_000
    check_fits(record(prompt=words, image_format="jpeg"))
    with pytest.raises(InvalidRequestError) as refusal:
        check_fits(record(prompt=words, negative_prompt=words, image_format="jpeg"))
    assert refusal.value.field == "image_format"
    made = record(prompt=words, negative_prompt=words, image_format="webp")
    check_fits(made)
    encode_image(PIXELS, ImageFormat.WEBP, made)


def test_the_longest_jpeg_that_is_accepted_can_be_written() -> None:
    for length in range(32_000, 32_768):
        made = record(prompt="w" * length, image_format="jpeg")
        try:
            check_fits(made)
        except InvalidRequestError:
            break
        longest = made
    encode_image(PIXELS, ImageFormat.JPEG, longest)


@pytest.mark.parametrize("image_format", [ImageFormat.JPEG, ImageFormat.WEBP])
def test_a_lossy_image_carries_its_parameters_as_exif(image_format: ImageFormat) -> None:
    made = record(image_format=image_format.value, negative_prompt="猫")
    image = Image.open(io.BytesIO(encode_image(PIXELS, image_format, made)))
    assert image.format == image_format.value.upper()
    assert image.size == (24, 16)
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment[8:].decode("utf-16-be") == parameters_text(made)
