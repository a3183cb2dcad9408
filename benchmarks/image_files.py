"""What does an image cost on its way into a file, and does the engine's thread wait meanwhile?

Images of 1024 x 1024 whose spectrum falls with frequency as photographs' do, from grainy to smooth.
Each round encodes one, in turn, with our PNG, Pillow's PNG of levels 1 and 6, JPEG and WebP, all in
one thread: CPU time and bytes. Then again beside a thread that does nothing but look at the clock:
what it misses is how long it was kept from the interpreter's lock.

    python benchmarks/image_files.py [--rounds 12]
"""

from __future__ import annotations

import argparse
import io
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from common import surroundings, write_result
from PIL import Image

from lpw_sdxl.imaging import ImageRecord, encode_image, parameters_text
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest, ImageFormat, ImageSize

SIDE = 1024  # pixels
KINDS = {"grainy": (1.25, 1.5), "like a photograph": (1.5, 0.5), "smooth": (2.0, 0.0)}
BLINK_S = 2e-4  # shorter gaps are the watching thread's own jitter

Pixels = npt.NDArray[np.uint8]
Encode = Callable[[Pixels], bytes]

RECORD = ImageRecord(
    request=GenerationRequest(prompt="a lighthouse at dusk, (stormy sea:1.3), " * 20),
    seed=7,
    size=ImageSize(SIDE, SIDE),
    scheduler=SchedulerName.EULER,
    model_name="sdxl",
    model_sha256="0123456789abcdef" * 4,
)


def natural(slope: float, grain: float, seed: int) -> Pixels:
    """Make an image whose amplitudes fall as 1/frequency^slope, with grain of some grey levels."""
    chance = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(chance.normal(size=(4, SIDE, SIDE))) / frequency**slope
    fields = np.fft.irfft2(spectrum)
    fields /= fields.std(axis=(1, 2), keepdims=True)
    levels = 128 + 50 * (fields[0] + 0.3 * fields[1:]) + grain * chance.normal(size=(3, SIDE, SIDE))
    return np.ascontiguousarray(levels.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def ours(pixels: Pixels, image_format: ImageFormat) -> bytes:
    return encode_image(pixels, image_format, RECORD)


def pillow(pixels: Pixels, level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


WAYS: dict[str, Encode] = {
    "png": partial(ours, image_format=ImageFormat.PNG),
    "pillow png level 1": partial(pillow, level=1),
    "pillow png level 6": partial(pillow, level=6),
    "jpeg": partial(ours, image_format=ImageFormat.JPEG),
    "webp": partial(ours, image_format=ImageFormat.WEBP),
}


class Watcher(threading.Thread):
    """A thread that reads the clock in a busy loop and notes the gaps between readings."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.gaps: list[float] = []  # seconds
        self.is_watching = True

    def run(self) -> None:
        """Watch until stopped."""
        last = time.perf_counter()
        while self.is_watching:
            now = time.perf_counter()
            if now - last > BLINK_S:
                self.gaps.append(now - last)
            last = now


def cpu_seconds(encode: Encode, pixels: Pixels) -> tuple[float, int]:
    started = time.thread_time()
    size = len(encode(pixels))
    return time.thread_time() - started, size


def seconds_kept(encode: Encode, pixels: Pixels) -> tuple[float, float]:
    """Encode beside a watcher; return for how long it was blocked, in all and at most."""
    watcher = Watcher()
    watcher.start()
    time.sleep(0.02)
    watcher.gaps.clear()
    encode(pixels)
    gaps = [*watcher.gaps]
    watcher.is_watching = False
    watcher.join()
    return sum(gaps), max(gaps, default=0.0)


def check(pixels: Pixels) -> None:
    """Check that a PNG has kept its pixels and text, so that its time counts."""
    image = Image.open(io.BytesIO(WAYS["png"](pixels)))
    assert image.info["parameters"] == parameters_text(RECORD)
    np.testing.assert_array_equal(np.asarray(image), pixels)


def measure(slope: float, grain: float, rounds: int) -> dict[str, dict[str, float]]:
    """Encode every round's image in all ways; the first round warms up."""
    numbers: dict[str, list[tuple[float, ...]]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        pixels = natural(slope, grain, number)
        check(pixels)
        for name, encode in WAYS.items():
            both = (*cpu_seconds(encode, pixels), *seconds_kept(encode, pixels))
            if number:
                numbers[name].append(both)
    columns = ("cpu_ms", "megabytes", "others_kept_ms", "others_kept_at_once_ms")
    scales = (1e3, 1e-6, 1e3, 1e3)
    return {
        name: {
            column: round(scale * statistics.median(values), 2)
            for column, scale, values in zip(columns, scales, zip(*rows, strict=True), strict=True)
        }
        for name, rows in numbers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = surroundings(torch.device("cpu")) | {
        "pixels": [SIDE, SIDE],
        "rounds": options.rounds,
        "images": {
            kind: measure(slope, grain, options.rounds) for kind, (slope, grain) in KINDS.items()
        },
    }
    write_result("image_files", result)


if __name__ == "__main__":
    main()
