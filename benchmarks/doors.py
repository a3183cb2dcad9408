"""What does another API's door cost, beside the native endpoint that draws the same images?

The same images by /generate and by A1111's /sdapi/v1/txt2img, so many requests at a time, in turn
and in another order each round: images a second, and the service's CPU seconds an image. The door
answers with base64 in JSON, and reads a looser request.

Bar: at least 0.95 of the native endpoint's throughput at 1024 x 1024, by the time and by CPU.

    python benchmarks/doors.py [--rounds 5] [--images 16] [--at-once 8] [--size 1024] [--steps 4]
        [--model DIRECTORY] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from common import service_surroundings, write_result
from load import own_process
from services import OtherWork, Running, cpu_seconds, model_to_serve, our_service, running

NATIVE, A1111 = "/generate", "/sdapi/v1/txt2img"
MIN_RATIO = 0.95


@dataclass(frozen=True)
class Load:
    """The images of one round.

    Attributes:
        path: of the endpoint.
        seeds: one for each image.
        size: pixels, both sides.
        steps: of each.
        at_once: requests at a time.
    """

    path: str
    seeds: range
    size: int
    steps: int
    at_once: int


def body_of(load: Load, seed: int) -> dict[str, object]:
    """Write the request of one image."""
    common: dict[str, object] = {
        "prompt": "a large (red:1.2) circle on a white background",
        "negative_prompt": "blue",
        "seed": seed,
        "width": load.size,
        "height": load.size,
    }
    if load.path == A1111:
        return common | {"steps": load.steps, "sampler_name": "Euler a", "cfg_scale": 5}
    return common | {
        "num_inference_steps": load.steps,
        "scheduler": "Euler a",
        "guidance_scale": 5.0,
        "prompt_style": "a1111-original",
        "sampler_implementation": "k_diffusion",
        "noise_source": "nv",
    }


def draw_all(url: str, load: Load) -> list[bytes]:
    """Draw images, so many at a time. For a process of the client's own.

    Raises:
        httpx.HTTPStatusError: one was refused.
    """

    async def play() -> list[bytes]:
        free = asyncio.Semaphore(load.at_once)
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:

            async def one(seed: int) -> bytes:
                async with free:
                    answer = await client.post(load.path, json=body_of(load, seed))
                answer.raise_for_status()
                return answer.content

            return await asyncio.gather(*map(one, load.seeds))

    return asyncio.run(play())


def file_of(path: str, content: bytes) -> bytes:
    """Return the image's file from an answer."""
    return base64.b64decode(json.loads(content)["images"][0]) if path == A1111 else content


def measure(server: Running, options: argparse.Namespace) -> dict[str, object]:
    """Measure both paths in turn, the first one second in every other round.

    Raises:
        RuntimeError: they draw different images.
    """
    rates: dict[str, list[float]] = {NATIVE: [], A1111: []}
    cpu: dict[str, list[float]] = {NATIVE: [], A1111: []}
    worker = psutil.Process(server.worker)
    shape = {name: getattr(options, name) for name in ("size", "steps", "at_once")}
    with own_process() as client:
        first = range(min(2, options.images))
        drawn = {
            path: client.run(draw_all, server.url, Load(path, first, **shape)) for path in rates
        }
        files = [[file_of(path, one) for one in drawn[path]] for path in rates]
        if files[0] != files[1]:
            raise RuntimeError("the door draws other images than the native endpoint")
        for number in range(options.rounds):
            seeds = range(1 + number * options.images, 1 + (number + 1) * options.images)
            for path in [*rates][:: 1 if number % 2 else -1]:
                before, started = cpu_seconds(worker), time.monotonic()
                client.run(draw_all, server.url, Load(path, seeds, **shape))
                rates[path].append(options.images / (time.monotonic() - started))
                cpu[path].append((cpu_seconds(worker) - before) / options.images)
            print({path: round(values[-1], 3) for path, values in rates.items()}, flush=True)
    by_time = statistics.median(a / b for a, b in zip(rates[A1111], rates[NATIVE], strict=True))
    by_cpu = statistics.median(b / a for a, b in zip(cpu[A1111], cpu[NATIVE], strict=True))
    return {
        "size": options.size,
        "steps": options.steps,
        "images": options.images,
        "at_once": options.at_once,
        "rounds": options.rounds,
        "images_a_second": {path: round(statistics.median(v), 3) for path, v in rates.items()},
        "cpu_seconds_an_image": {path: round(statistics.median(v), 4) for path, v in cpu.items()},
        "ratio_by_time": round(by_time, 3),
        "ratio_by_cpu": round(by_cpu, 3),
        "bars_met": {
            "0.95 by time": by_time >= MIN_RATIO,
            "0.95 by CPU": by_cpu >= MIN_RATIO,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=16, help="of a round")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--size", type=int, default=1024, help="pixels, both sides")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="one round; no result is kept")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.images, options.at_once, options.steps = 1, 2, 2, 1
    with (
        model_to_serve(options.model) as model,
        running(our_service(model), model, options.threads) as server,
    ):
        device = str(server.ask("/info")["device"])
        others = OtherWork()
        result = measure(server, options) | {"others_share_of_cores": others.share()}
    about = service_surroundings(device, options.threads)
    write_result("doors", about | result, keep=not options.quick)


if __name__ == "__main__":
    main()
