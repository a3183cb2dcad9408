from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from lpw_sdxl.imaging.png import encode_png

Pixels = npt.NDArray[np.uint8]


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height * 9973 + width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


def flat(level: int) -> Pixels:
    return np.full((64, 96, 3), level, np.uint8)


def checkers() -> Pixels:
    """0 and 255 side by side and above each other: the largest differences there are."""
    rows, columns = np.indices((33, 47))
    return np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def gradient() -> Pixels:
    rows, columns = np.indices((257, 511))
    return np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)


PIXELS = {
    "one pixel": noise(1, 1),
    "one row": noise(1, 517),
    "one column": noise(517, 1),
    "odd": noise(333, 517),
    "noise of 1024": noise(1024, 1024),
    "black": flat(0),
    "white": flat(255),
    "checkers of 0 and 255": checkers(),
    "gradient": gradient(),
    "a view that is not contiguous": noise(64, 64)[::2, 1::3],
}

TEXTS = {
    "none": "",
    "plain": "a fox, (snow:1.2)",
    "Latin-1": "h\u00e9ron \u00e0 l'aube \u00ff",
    "beyond Latin-1": "\u732b \u0436 \U0001f98a",
    "lines": "one\ntwo\r\nthree\ttabbed\n",
    "120 KB": "word, " * 20_000,
    "120 KB beyond Latin-1": "\u732b, " * 30_000,
}


def read(content: bytes) -> PngImagePlugin.PngImageFile:
    image = Image.open(io.BytesIO(content))
    assert isinstance(image, PngImagePlugin.PngImageFile)
    return image


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Read a PNG's frame strictly, by the standard alone: each length and CRC must be right."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    found, place = [], 8
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        data = content[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, place + 8 + length)
        assert checksum == zlib.crc32(kind + data)
        found.append((kind, data))
        place += 12 + length
    assert place == len(content)
    return found


@pytest.mark.parametrize("pixels", PIXELS.values(), ids=PIXELS.keys())
def test_pillow_reads_back_every_pixel(pixels: Pixels) -> None:
    content = encode_png(pixels, {})
    read(content).verify()
    image = read(content)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.integers(1, 256))
def test_any_pixels_come_back(height: int, width: int, seed: int, levels: int) -> None:
    chance = np.random.default_rng(seed)
    pixels = chance.integers(0, levels, (height, width, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(read(encode_png(pixels, {}))), pixels)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_pillow_reads_back_every_text(text: str) -> None:
    content = encode_png(flat(9), {"parameters": text, "seed": "7"})
    read(content).verify()
    assert read(content).text == {"parameters": text, "seed": "7"}


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    assert read(encode_png(flat(9), {"parameters": text})).text == {"parameters": text}


def test_the_chunks_are_those_of_the_standard_in_its_order() -> None:
    found = chunks(encode_png(noise(5, 7), {"seed": "7", "parameters": "\u732b"}))
    assert [kind for kind, _ in found] == [b"IHDR", b"tEXt", b"iTXt", b"IDAT", b"IEND"]
    header, latin, other, pixels, _ = (data for _, data in found)
    assert struct.unpack(">IIBBBBB", header) == (7, 5, 8, 2, 0, 0, 0)
    assert latin == b"seed\x007"
    assert other == b"parameters\0\0\0\0\0" + "\u732b".encode()
    assert len(zlib.decompress(pixels)) == 5 * (1 + 3 * 7)


def test_a_text_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="parameters holds a NUL"):
        encode_png(flat(9), {"parameters": "a\0b"})


def test_a_file_is_not_much_larger_than_pillows() -> None:
    """Smooth noise, the likest to a photograph that needs no file."""
    spectrum = np.fft.rfft2(np.random.default_rng(0).normal(size=(3, 512, 512)))
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(spectrum / frequency**1.5)
    pixels = np.clip(128 + 50 * field / field.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    assert len(encode_png(pixels, {})) < 1.05 * len(buffer.getvalue())
