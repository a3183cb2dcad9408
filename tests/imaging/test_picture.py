from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from forge.bad_pictures import COLOUR, JPEG, REFUSED, SMALL, WEBP, webp_of
from forge.pictures import (
    KINDS,
    TRUECOLOUR,
    ForgedPicture,
    icc_chunk,
    linear_grey_profile,
    noise,
    smooth,
    write_exif,
    write_png,
)
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging.containers import read_container
from lpw_sdxl.imaging.orientation import read_orientation
from lpw_sdxl.imaging.picture import PictureLimits, read_picture

# Height and width: single rows and columns, sides that fill no byte, block or band of rows.
SIZES = [(1, 1), (1, 9), (7, 1), (3, 5), (8, 8), (17, 33), (64, 40), (96, 130), (520, 600)]
LIMITS = PictureLimits(max_bytes=200_000, max_pixels=90_000, max_side=400)


def refusal(content: bytes, limits: PictureLimits = LIMITS) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as raised:
        read_picture(content, "mask_image", limits)
    assert raised.value.field == "mask_image"
    assert raised.value.message.startswith("mask_image ")
    return raised.value


def check_right(forged: ForgedPicture) -> None:
    picture = read_picture(forged.content, "image", PictureLimits())
    assert picture.pixels.shape == forged.pixels.shape
    assert picture.size == forged.pixels.shape[:2]
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    difference = np.abs(picture.pixels.astype(int) - forged.pixels)
    assert difference.max() <= forged.tolerance
    assert (picture.alpha is None) == (forged.alpha is None)
    if forged.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, forged.alpha)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read_as_its_right_pixels(kind: str, size: tuple[int, int]) -> None:
    check_right(KINDS[kind](*size))


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_such_picture_is_refused_by_name(content: bytes, reason: str) -> None:
    assert reason in refusal(content, PictureLimits(max_bytes=2**25)).message


@pytest.mark.parametrize("kind", SMALL)
def test_a_file_cut_off_anywhere_is_refused(kind: str) -> None:
    content = SMALL[kind]
    for end in (*range(0, len(content), 64), *range(len(content) - 20, len(content))):
        assert re.search("cut off|empty|no known", refusal(content[:end]).message), end


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_a_spoilt_file_is_a_picture_or_a_refusal(data: st.DataObject) -> None:
    content = bytearray(SMALL[data.draw(st.sampled_from([*SMALL]))])
    places = st.integers(0, len(content) - 1) | st.integers(0, min(700, len(content)) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1)):
        content[place] = value
    try:
        picture = read_picture(bytes(content), "image", LIMITS)
    except InvalidRequestError as error:
        assert error.field == "image"  # noqa: PT017 - it may be read, too
    else:
        assert picture.size.height * picture.size.width <= LIMITS.max_pixels


@given(st.binary(max_size=300), st.sampled_from([b"", COLOUR[:8], JPEG[:3], WEBP[:16]]))
def test_bytes_that_begin_like_a_picture_are_refused(rest: bytes, head: bytes) -> None:
    refusal(head + rest)


def test_limits_are_inclusive() -> None:
    content = write_png(noise(40, 56, 3), TRUECOLOUR)
    exact = PictureLimits(max_bytes=len(content), max_pixels=40 * 56, max_side=56)
    assert read_picture(content, "image", exact).size == (40, 56)
    less = PictureLimits(len(content) - 1, exact.max_pixels, exact.max_side)
    assert (
        f"has {len(content)} bytes and may have {len(content) - 1}"
        in refusal(content, less).message
    )
    less = PictureLimits(exact.max_bytes, exact.max_pixels - 1, exact.max_side)
    assert "is 56x40 pixels and may have 2239 in all" in refusal(content, less).message
    less = PictureLimits(exact.max_bytes, exact.max_pixels, exact.max_side - 1)
    assert "is 56x40 pixels and may have 55 a side" in refusal(content, less).message


@pytest.mark.parametrize("side", [20, 80])
def test_the_size_is_the_headers_or_the_file_is_refused(side: int) -> None:
    """A WebP states its size twice; the larger one must not be decoded under the smaller's name."""
    assert "damaged" in refusal(webp_of(side, side)).message


def test_a_webp_cut_off_between_two_parts_is_refused() -> None:
    content = SMALL["webp-profile-turned"]
    assert "cut off" in refusal(content[: content.index(b"EXIF", 100)]).message


def test_a_profile_in_several_segments_is_put_together() -> None:
    profile = noise(1, 1, 150_000)[0, 0].astype(np.uint8).tobytes()
    buffer = io.BytesIO()
    Image.fromarray(smooth(40, 56)).save(buffer, "JPEG", icc_profile=profile)
    assert read_container(buffer.getvalue(), "image").icc_profile == profile


def test_a_profile_of_gigabytes_is_not_inflated() -> None:
    content = write_png(noise(4, 4, 3), TRUECOLOUR, chunks=[icc_chunk(bytes(2**25))])
    assert read_container(content, "image").icc_profile == b""


@pytest.mark.parametrize("kind", ["jpeg-turned-6", "png-turned"])
def test_the_decoder_gets_no_texts(kind: str) -> None:
    container = read_container(SMALL[kind], "image")
    assert read_orientation(container.exif) == 6
    assert container.exif not in container.coded


def test_long_texts_and_what_phones_append_do_not_matter() -> None:
    samples = noise(40, 56, 3)
    text = (b"tEXt", b"workflow\0" + bytes(range(1, 256)) * 8_000)
    packed = (b"zTXt", b"parameters\0\0" + zlib.compress(bytes(2**26)))
    content = write_png(samples, TRUECOLOUR, chunks=[text, packed]) + b"trailer"
    check_right(ForgedPicture(content, samples.astype(np.uint8)))
    forged = KINDS["jpeg"](40, 56)
    film = bytes(noise(1, 1, 200_000)[0, 0].astype(np.uint8))
    check_right(forged._replace(content=forged.content + forged.content + film))


@pytest.mark.parametrize(
    "profile",
    [b"junk" * 50, linear_grey_profile(), bytes(2**25)],
    ids=["no profile", "one of grey", "a bomb"],
)
def test_a_profile_that_does_not_fit_is_ignored(
    profile: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    samples = noise(40, 56, 3)
    content = write_png(samples, TRUECOLOUR, chunks=[icc_chunk(profile)])
    check_right(ForgedPicture(content, samples.astype(np.uint8)))
    if len(profile) < 2**20:
        assert "colour profile can't be used" in caplog.text


@pytest.mark.parametrize(
    "exif",
    [b"", b"MM", b"MM\0*\0\0\0\x08", write_exif(6)[:-8], write_exif(9), write_exif(0), b"?" * 40],
)
def test_an_exif_block_without_an_orientation_turns_nothing(exif: bytes) -> None:
    samples = noise(40, 56, 3)
    content = write_png(samples, TRUECOLOUR, chunks=[(b"eXIf", exif)])
    check_right(ForgedPicture(content, samples.astype(np.uint8)))


MEASURE = """
import sys
from lpw_sdxl.imaging.picture import PictureLimits, read_picture

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

small, content = sys.stdin.buffer.read().split(b"|next|")
read_picture(small, "image", PictureLimits())  # imports and tables are not the picture's
before = peak()
picture = read_picture(content, "image", PictureLimits(max_bytes=2**26))
print((peak() - before) / picture.pixels[..., 0].size)
"""


@pytest.mark.processes
@pytest.mark.thorough
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["png-turned", "jpeg-progressive", "jpeg-cmyk", "webp"])
def test_reading_takes_at_most_20_bytes_a_pixel(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=SMALL[kind] + b"|next|" + KINDS[kind](3000, 3000).content,
        capture_output=True,
        check=True,
    )
    assert float(done.stdout) <= 20
