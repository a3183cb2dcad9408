"""Streams of requests, the same for the same seed; it knows nothing of HTTP.

Settings are drawn from the values that people choose, so that some requests share all of them and
a service that groups by settings finds groups.
"""

from __future__ import annotations

import base64
import itertools
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

STEPS = (10, 15, 20, 25, 30, 40)
GUIDANCE_SCALES = (1.0, 3.0, 5.0, 7.0, 9.0)  # 1 is without guidance: one UNet row, not two
SCHEDULERS = ("Euler", "Euler a", "DPM++ 2M Karras", "DDIM")
# One CLIP token each.
WORDS = (
    "fox", "snow", "river", "castle", "storm", "light", "forest", "moon", "bridge", "garden",
    "ship", "mountain", "city", "rain", "glass", "fire", "horse", "winter", "gold", "portrait",
)  # fmt: skip
NEGATIVE_PROMPT = "blurry, low quality, text"
ONE_WINDOW_TOKENS = 75
LONG_TOKENS = 300
OTHER_SIZE_SHARE = 1 / 8
PICTURE_SHARE = 1 / 2
STRENGTHS = (0.3, 0.5, 0.75, 1.0)
HIRES_SHARE = 1 / 4
HIRES = {"scale": 1.5, "strength": 0.5, "upscaler": "lanczos"}


class Stream(StrEnum):
    """The common properties of a stream's requests."""

    MIXED = "mixed"
    LONG = "long"
    ALIKE = "alike"
    PICTURES = "pictures"
    HIRES = "hires"


@dataclass(frozen=True)
class Arrival:
    """A request and its time of arrival, seconds from the start."""

    at_s: float
    request: Mapping[str, object]


def requests(stream: Stream, size: int, seed: int) -> Iterator[dict[str, object]]:
    """Draw requests without end, as `/generate` takes them.

    `mixed` differs in everything, with prompts that fit CLIP's window, for the stock pipeline cuts
    longer ones off. `long` is the same with prompts of up to 300 tokens. `alike` differs in prompt
    and seed alone. `pictures` is `mixed`, with a picture to start from in every second request;
    `hires` is `mixed`, with a second pass in every fourth.

    Args:
        stream: which.
        size: both sides of most images, pixels.
        seed: of everything that is drawn.
    """
    draw = random.Random(seed)
    make = _STREAMS[stream]
    for number in itertools.count(1):
        yield make(draw, size) | {"seed": number, "negative_prompt": NEGATIVE_PROMPT}


def poisson(
    stream: Iterator[dict[str, object]], per_second: float, images: int, seed: int
) -> list[Arrival]:
    """Draw arrivals of so many requests, independent of each other and of the answers."""
    draw = random.Random(seed)
    times = itertools.accumulate(draw.expovariate(per_second) for _ in range(images))
    return [Arrival(at, request) for at, request in zip(times, stream, strict=False)]


def _mixed(draw: random.Random, size: int) -> dict[str, object]:
    # A real portrait is as many pixels as the square; this one is a little less work for all.
    width = size * 3 // 4 if draw.random() < OTHER_SIZE_SHARE else size
    return {
        "prompt": _prompt(draw, ONE_WINDOW_TOKENS),
        "num_inference_steps": draw.choice(STEPS),
        "guidance_scale": draw.choice(GUIDANCE_SCALES),
        "scheduler": draw.choice(SCHEDULERS),
        "width": width,
        "height": size,
    }


def _long(draw: random.Random, size: int) -> dict[str, object]:
    return _mixed(draw, size) | {"prompt": _prompt(draw, LONG_TOKENS)}


def _alike(draw: random.Random, size: int) -> dict[str, object]:
    return {
        "prompt": _prompt(draw, ONE_WINDOW_TOKENS),
        "num_inference_steps": 25,
        "guidance_scale": 5.0,
        "scheduler": SCHEDULERS[0],
        "width": size,
        "height": size,
    }


def _pictures(draw: random.Random, size: int) -> dict[str, object]:
    request = _mixed(draw, size)
    if draw.random() < PICTURE_SHARE:
        request |= {
            "image": _picture(draw, int(str(request["height"])), int(str(request["width"]))),
            "strength": draw.choice(STRENGTHS),
        }
    return request


def _hires(draw: random.Random, size: int) -> dict[str, object]:
    second = {"hires": HIRES} if draw.random() < HIRES_SHARE else {}
    return _mixed(draw, size) | second


def _picture(draw: random.Random, height: int, width: int) -> str:
    """Draw a PNG with slopes of colour, in base64."""
    steps = [draw.randint(1, 5) for _ in range(6)]
    rows = b"".join(
        b"\0" + bytes((y * down + x * right) % 256 for x in range(width) for down, right in
                      zip(steps[::2], steps[1::2], strict=True))
        for y in range(height)
    )  # fmt: skip
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + content).decode()


def _prompt(draw: random.Random, most_tokens: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, most_tokens)))


_STREAMS: Mapping[Stream, Callable[[random.Random, int], dict[str, object]]] = {
    Stream.MIXED: _mixed,
    Stream.LONG: _long,
    Stream.ALIKE: _alike,
    Stream.PICTURES: _pictures,
    Stream.HIRES: _hires,
}
