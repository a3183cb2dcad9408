"""Does the service stay the same over 2,000 images in a row?

A real `bentoml serve`, eight mixed requests always in flight: every scheduler and prompt style that
`/info` names, three formats, prompts of 1 to 300 tokens. One in twenty is left by its client before
it is done, one in twenty-five is wrong. The worker's resident memory is read after every tenth
image; its slope over the second half is by least squares. The series of `/metrics` are counted
after the first tenth and at the end. The memory of encoded prompts is set to 4 MB, so that it is
full long before the second half.

Bars: at most 10 KB an image, as many series as before, no status but those asked for.

    python benchmarks/soak.py [--images 2000] [--size PIXELS] [--model DIRECTORY] [--threads 2]
        [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from common import service_surroundings, write_result
from load import Answer, Client, Target, own_process
from services import OtherWork, model_to_serve, our_service, running
from workload import Stream, requests

IN_FLIGHT = 8
SAMPLE_EVERY = 10  # images
REPORT_EVERY = 100  # images
LEFT_ONE_IN = 20
BAD_ONE_IN = 25
PROMPT_MEMORY_BYTES = 4 * 1024 * 1024
FORMATS = ("png", "jpeg", "webp")
BAD: Sequence[dict[str, object]] = (
    # Refused by the engine and not by the guard; the first, so that it is soon in /metrics.
    {"prompt": "(" * 1000, "prompt_style": "lpw"},
    {"width": 1023},
    {"num_inference_steps": 0},
    {"widht": 128},
    {"guidance_scale": "five"},
    {"scheduler": "Heun's own"},
)
FEWEST_BEFORE_COUNT = 100  # images; by then there were answers of each kind
MAX_SLOPE_KB = 10


@dataclass(frozen=True)
class Sample:
    """The worker's resident memory after so many images."""

    images: int
    resident_mb: float


@dataclass
class Soak:
    """The course of a run.

    Attributes:
        expected: answers as they should be, by status.
        unexpected: all others, by status.
        left: requests that their client left.
        samples: memory, in order.
        series: of /metrics, by the number of images done.
    """

    expected: Counter[int] = field(default_factory=Counter)
    unexpected: Counter[int] = field(default_factory=Counter)
    left: int = 0
    samples: list[Sample] = field(default_factory=list)
    series: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Errand:
    """A request, its expected status, and when its client disconnects (seconds), if it does."""

    request: dict[str, object]
    status: int
    leaves_s: float | None = None


def errands(info: dict[str, Any], size: int) -> Iterator[Errand]:
    """Draw clients' requests, without end."""
    draw = random.Random(1)
    streams = [requests(stream, size, seed=1) for stream in (Stream.MIXED, Stream.LONG)]
    kinds = zip(
        itertools.count(1),
        itertools.cycle(info["schedulers"]),
        itertools.cycle(info["prompt_styles"]),
        itertools.cycle(FORMATS),
        itertools.cycle(BAD),
        strict=False,
    )
    for number, scheduler, style, image_format, bad in kinds:
        request = next(streams[number % len(streams)]) | {
            "scheduler": scheduler,
            "prompt_style": draw.choice([style, *info["prompt_styles"]]),
            "image_format": image_format,
        }
        if number % BAD_ONE_IN == 0:
            yield Errand(request | bad, status=400)
        elif number % LEFT_ONE_IN == 0:
            yield Errand(request, status=200, leaves_s=draw.uniform(0.01, 1.0))
        else:
            yield Errand(request, status=200)


class Soaker:
    """The clients and their notes, in a process of its own.

    Args:
        url: of the service.
        worker: its process id.
        images: how many to make.
    """

    def __init__(self, url: str, worker: int, images: int) -> None:
        self.url = url
        self.images = images
        self._first_count = max(images // 10, FEWEST_BEFORE_COUNT)
        self.seen = Soak()
        self._worker = psutil.Process(worker)

    async def run(self, info: dict[str, Any], size: int) -> Soak:
        """Keep the clients busy until all images are made."""
        wanted = errands(info, size)
        async with Client(self.url, Target(mark=b"")) as client:  # three formats, three marks
            await asyncio.gather(*(self._serve(client, wanted) for _ in range(IN_FLIGHT)))
        await self._count_series()
        return self.seen

    async def _serve(self, client: Client, wanted: Iterator[Errand]) -> None:
        while self.seen.expected[200] < self.images:
            errand = next(wanted)
            try:
                async with asyncio.timeout(errand.leaves_s):
                    answer = await client.send(errand.request)
            except TimeoutError:
                self.seen.left += 1
                continue
            await self._note(errand, answer)

    async def _note(self, errand: Errand, answer: Answer) -> None:
        is_right = answer.status == errand.status
        (self.seen.expected if is_right else self.seen.unexpected)[answer.status] += 1
        done = self.seen.expected[200]
        if answer.status != 200:
            return
        if done % SAMPLE_EVERY == 0:
            self.seen.samples.append(Sample(done, self._worker.memory_info().rss / 1e6))
        if done % REPORT_EVERY == 0:
            print(f"{done} images: {self.seen.samples[-1].resident_mb:.0f} MB", flush=True)
        if done == self._first_count:
            await self._count_series()

    async def _count_series(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            text = (await client.get("/metrics")).text
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        self.seen.series[self.seen.expected[200]] = len(lines)


def soak(url: str, worker: int, images: int, info: dict[str, Any], size: int) -> Soak:
    return asyncio.run(Soaker(url, worker, images).run(info, size))


def slope_kb(samples: Sequence[Sample]) -> float:
    """Fit resident memory over the second half of the images; KB an image."""
    half = [sample for sample in samples if sample.images > samples[-1].images / 2]
    fit = statistics.linear_regression(
        [sample.images for sample in half], [sample.resident_mb for sample in half]
    )
    return fit.slope * 1000


def summary(seen: Soak, engine: object) -> dict[str, object]:
    slope = slope_kb(seen.samples)
    reported = [sample for sample in seen.samples if sample.images % REPORT_EVERY == 0]
    return {
        "images": seen.expected[200],
        "in_flight": IN_FLIGHT,
        "as_asked": dict(seen.expected),
        "left_by_their_client": seen.left,
        "otherwise": dict(seen.unexpected),
        "resident_mb": {sample.images: round(sample.resident_mb, 1) for sample in reported},
        "slope_kb_per_image": round(slope, 2),
        "metric_series_after_images": seen.series,
        "engine": engine,
        "bars_met": {
            "memory flat": slope <= MAX_SLOPE_KB,
            "metric series constant": len(set(seen.series.values())) == 1,
            "nothing unexpected": not seen.unexpected,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="200 images; no result is kept")
    options = parser.parse_args()
    images = 200 if options.quick else options.images
    with model_to_serve(options.model) as model, own_process() as client:
        service = our_service(model, conditioning_cache_bytes=PROMPT_MEMORY_BYTES)
        with running(service, model, options.threads) as server:
            info = server.ask("/info")
            others = OtherWork()
            seen = client.run(soak, server.url, server.worker, images, info, options.size)
            share = others.share()
            engine = server.ask("/info")["engine"]
    about = service_surroundings(str(info["device"]), options.threads)
    result = about | summary(seen, engine) | {"others_share_of_cores": share}
    write_result("soak", result, keep=not options.quick)


if __name__ == "__main__":
    main()
