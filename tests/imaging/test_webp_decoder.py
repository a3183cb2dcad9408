from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from forge.pictures import noise, smooth
from lpw_sdxl.imaging.picture import PictureLimits, read_picture
from lpw_sdxl.imaging.webp_decoder import decode_webp
from lpw_sdxl.schema import ImageSize


def webp(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", **options)
    return buffer.getvalue()


PICTURES = {
    "lossy": webp(smooth(41, 57), quality=60),
    "lossy with alpha": webp(smooth(41, 57, 4), quality=60),
    "lossless": webp(noise(41, 57, 3).astype(np.uint8), lossless=True),
    "lossless with alpha": webp(noise(41, 57, 4).astype(np.uint8), lossless=True, exact=True),
}


@pytest.mark.parametrize("content", PICTURES.values(), ids=PICTURES)
def test_the_pixels_are_those_that_pillow_gives(content: bytes) -> None:
    image = decode_webp(content, ImageSize(41, 57))
    assert image is not None
    with Image.open(io.BytesIO(content)) as pillow:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(pillow.convert("RGBA")))


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (PICTURES["lossy"][:-40], ImageSize(41, 57)),
        (PICTURES["lossless"], ImageSize(41, 56)),
        (PICTURES["lossless"], ImageSize(40, 57)),
        (b"RIFF", ImageSize(41, 57)),
    ],
    ids=["cut off", "narrower than the picture", "lower than the picture", "no picture"],
)
def test_what_does_not_fit_is_not_decoded(content: bytes, size: ImageSize) -> None:
    assert decode_webp(content, size) is None


def test_an_animation_of_one_frame_is_read() -> None:
    """libwebp's plain function takes none; Pillow does."""
    pixels = noise(41, 57, 3).astype(np.uint8)
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    content = buffer.getvalue()
    second = content.index(b"ANMF", content.index(b"ANMF") + 4)
    one = b"RIFF" + (second - 8).to_bytes(4, "little") + content[8:second]
    assert decode_webp(one, ImageSize(41, 57)) is None
    np.testing.assert_array_equal(read_picture(one, "image", PictureLimits()).pixels, pixels)
