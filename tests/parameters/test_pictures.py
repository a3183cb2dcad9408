"""The text of a picture's file, wherever programs put it; nothing is decoded."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging import encode_image
from lpw_sdxl.imaging.png import SIGNATURE
from lpw_sdxl.imaging.record import ImageRecord, parameters_text
from lpw_sdxl.parameters import read_picture
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageFormat, ImageSize
from tests.parameters.pictures import (
    TEXT,
    chunk,
    compressed,
    exif,
    international,
    jpeg,
    plain,
    png,
    webp,
)

WORDS = "a h\u00e9ron, \u732b \U0001f98a\nSteps: 20, Sampler: Euler a"
BIG, LITTLE = WORDS.encode("utf-16-be"), WORDS.encode("utf-16-le")
READ = {
    "tEXt": (png(plain(TEXT)), TEXT),
    "tEXt in Latin-1": (png(plain("a h\u00e9ron")), "a h\u00e9ron"),
    "tEXt in UTF-8": (png(plain("a \u732b".encode())), "a \u732b"),
    "zTXt": (png(compressed(zlib.compress(TEXT.encode()))), TEXT),
    "iTXt": (png(international(WORDS.encode())), WORDS),
    "iTXt, compressed": (
        png(international(zlib.compress(WORDS.encode()), is_compressed=True)),
        WORDS,
    ),
    "the first of two": (png(plain(TEXT), plain("other")), TEXT),
    "beside ComfyUI's": (png(plain("{}", "prompt"), plain(TEXT)), TEXT),
    "a PNG that is cut off": (png(plain(TEXT), is_whole=False), TEXT),
    "a PNG's Exif": (png(chunk(b"eXIf", exif(b"UNICODE\0" + BIG))), WORDS),
    "behind an empty text": (png(plain(""), chunk(b"eXIf", exif(b"UNICODE\0" + BIG))), WORDS),
    "a PNG's pixels before its text": (
        png(chunk(b"IDAT", b"no pixels"), plain(TEXT)),
        TEXT,
    ),
    "JPEG": (jpeg(exif(b"UNICODE\0" + BIG)), WORDS),
    "JPEG, little-endian": (jpeg(exif(b"UNICODE\0" + LITTLE, "<")), WORDS),
    "JPEG, one order in the other": (jpeg(exif(b"UNICODE\0" + BIG, "<")), WORDS),
    "JPEG, the other in the one": (jpeg(exif(b"UNICODE\0" + LITTLE, ">")), WORDS),
    "JPEG with a mark": (jpeg(exif(b"UNICODE\0\xff\xfe" + LITTLE)), WORDS),
    "JPEG, UTF-8 as Unicode": (jpeg(exif(b"UNICODE\0" + b"a cat, odd")), "a cat, odd"),
    "JPEG, ASCII": (jpeg(exif(b"ASCII\0\0\0" + TEXT.encode())), TEXT),
    "JPEG, no code": (jpeg(exif(bytes(8) + TEXT.encode() + b"\0")), TEXT),
    "JPEG, without the code's place": (jpeg(exif(TEXT.encode())), TEXT),
    "JPEG, Chinese alone": (jpeg(exif(b"UNICODE\0" + "\u732b\u72ac".encode("utf-16-be"))), "猫犬"),
    "WebP": (webp(exif(b"UNICODE\0" + BIG)), WORDS),
    "WebP with other tags": (
        webp(exif(b"UNICODE\0" + BIG, tags={0x0110: b"workflow:{}\0"})),
        WORDS,
    ),
}


@pytest.mark.parametrize(("content", "text"), READ.values(), ids=READ.keys())
def test_a_text_is_found(content: bytes, text: str) -> None:
    assert read_picture(content) == text


REFUSED = {
    "nothing": (b"", "is empty"),
    "no picture": (b"GIF89a", "is a GIF"),
    "a PNG without a text": (png(), "holds no text of how it was made"),
    "a JPEG without a text": (jpeg(None), "holds no text of how it was made"),
    "a WebP without a text": (webp(None), "holds no text of how it was made"),
    "an empty comment": (jpeg(exif(b"UNICODE\0")), "holds no text of how it was made"),
    "JIS": (jpeg(exif(b"JIS\0\0\0\0\0abc")), "in JIS, which is not read"),
    "ComfyUI": (png(plain("{}", "prompt"), plain("{}", "workflow")), "was made by ComfyUI"),
    "ComfyUI's WebP": (
        webp(exif(b"", tags={0x010F: b"Workflow:{}\0", 0x0110: b"Prompt:{}\0"})),
        "was made by ComfyUI",
    ),
    "InvokeAI": (png(plain("{}", "invokeai_metadata")), "was made by InvokeAI"),
    "old InvokeAI": (png(plain("{}", "sd-metadata")), "was made by InvokeAI"),
    "NovelAI": (
        png(plain("NovelAI", "Software"), plain('{"uc": ""}', "Comment")),
        "was made by NovelAI",
    ),
    "another program's software": (png(plain("Krita", "Software")), "holds no text"),
    "a bomb": (
        png(compressed(zlib.compress(bytes(64 * 2**20), 9))),
        "holds no text of how it was made",
    ),
    "a bomb in iTXt": (
        png(international(zlib.compress(b"a" * 64 * 2**20, 9), is_compressed=True)),
        "holds no text of how it was made",
    ),
    "a text that does not inflate": (png(compressed(b"no zlib")), "holds no text"),
    "another method": (png(chunk(b"zTXt", b"parameters\0\x01abc")), "holds no text"),
    "a text beyond all": (png(plain("a" * (2**20 + 1))), "holds no text"),
    "a length beyond the file": (
        SIGNATURE + struct.pack(">I4s", 2**31, b"tEXt") + b"parameters\0a",
        "holds no text",
    ),
    "a signature alone": (SIGNATURE, "holds no text"),
    "a damaged JPEG": (b"\xff\xd8\xff\xe0", "is a JPEG that is cut off"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_picture_without_a_text_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as refusal:
        read_picture(content)
    assert refusal.value.field == "image"


def test_many_chunks_are_walked_in_bounded_time() -> None:
    many = b"".join([plain("a", "note")] * 70_000)
    with pytest.raises(InvalidRequestError, match="holds no text"):
        read_picture(png(many, plain(TEXT)))
    few = b"".join([plain("a", "note")] * 1000)
    assert read_picture(png(few, plain(TEXT))) == TEXT


@given(st.binary(max_size=200), st.integers(0, 500))
def test_any_damage_to_exif_is_a_text_or_a_refusal(damage: bytes, place: int) -> None:
    block = bytearray(exif(b"UNICODE\0" + BIG, tags={0x0110: b"a\0"}))
    block[place : place + len(damage)] = damage
    with contextlib.suppress(InvalidRequestError):
        assert isinstance(read_picture(png(chunk(b"eXIf", bytes(block)))), str)


@pytest.mark.parametrize("image_format", ImageFormat)
@pytest.mark.parametrize("prompt", ["a cat", "a h\u00e9ron\nb", "\u732b", "\u00c3\u00a9"])
def test_our_own_files_are_read_back(image_format: ImageFormat, prompt: str) -> None:
    request = GenerationRequest(prompt=prompt, image_format=image_format)
    record = ImageRecord(request, 7, ImageSize(8, 8), SchedulerName.EULER, "sdxl", "0" * 64)
    content = encode_image(np.zeros((8, 8, 3), np.uint8), image_format, record)
    assert read_picture(content) == parameters_text(record)


def test_a_png_of_pillow_is_read() -> None:
    buffer, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_text("parameters", WORDS)
    texts.add_text("note", "b", zip=True)
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=texts)
    assert read_picture(buffer.getvalue()) == WORDS
