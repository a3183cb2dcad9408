"""Does a GPU keep its rate for a minute, and for requests that differ, with each switch?

For each way of serving, in one process with the engine: a minute of equal requests, a minute of
requests that differ (15 to 50 steps, guidance 1 to 12, prompts of 1 to 4 chunks), each with eight
in flight; megapixel steps a second of both halves, the first ten seconds left out; and the clock,
the power and the temperature that nvidia-smi shows each second. The mixed rate is to be nine tenths
of the equal one.

    python benchmarks/gpu_sustained.py [--model DIRECTORY] [--seconds 60] [--ways plain fused …]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import surroundings, write_result
from gpu import FLOP_SIZE, PROMPTS, RANDOM_BYTES, Case, random_model

from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.device_choice import choose_device
from lpw_sdxl.errors import SettingsError
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fused": {"fused_kernels": True, "half_decode": True},
    "fp8": {"precision": "fp8", "half_decode": True},
}
IN_FLIGHT = 8
FIRST_SHARE = 1 / 6  # of a run, in which its first images are not done yet
CHUNK = "a very detailed picture of it in the light of the evening sun over the old harbour, "
QUERY = "clocks.sm,power.draw,temperature.gpu"


def mixed_requests(size: int) -> Iterator[dict[str, Any]]:
    """Yield requests that differ, the same ones each time."""
    drawn = random.Random(0)
    for seed in itertools.count():
        yield {
            "prompt": PROMPTS[seed % len(PROMPTS)] + ", " + CHUNK * 4 * drawn.randrange(4),
            "negative_prompt": "blurry",
            "num_inference_steps": drawn.randint(15, 50),
            "guidance_scale": drawn.uniform(1.0, 12.0),
            "scheduler": drawn.choice(["Euler", "Euler a", "DPM++ 2M Karras"]),
            "seed": seed,
            "width": size,
            "height": size,
        }


class Gauge:
    """What nvidia-smi shows of the GPU, noted each second."""

    def __init__(self) -> None:
        self.readings: list[tuple[float, ...]] = []

    async def note(self) -> None:
        """Note readings until it is cancelled; where there is no nvidia-smi, none."""
        while shutil.which("nvidia-smi"):
            asked = await asyncio.create_subprocess_exec(
                "nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits",
                stdout=subprocess.PIPE,
            )  # fmt: skip
            shown, _ = await asked.communicate()
            with contextlib.suppress(ValueError):
                self.readings.append(tuple(map(float, shown.decode().splitlines()[0].split(","))))
            await asyncio.sleep(1)

    def summary(self) -> dict[str, list[float]]:
        """Return first, median and last of each reading."""
        columns = zip(*self.readings, strict=True)
        return {
            name: [column[0], statistics.median(column), column[-1]]
            for name, column in zip(QUERY.split(","), columns, strict=False)
        }


async def sustain(
    engine: Engine, requests: Iterator[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """Keep the engine busy for a while; return its rates and the GPU's readings."""
    done: list[tuple[float, float]] = []  # when, megapixel steps of rows
    gauge, started = Gauge(), time.perf_counter()
    readings = asyncio.create_task(gauge.note())

    async def one_after_the_other() -> None:
        while time.perf_counter() - started < seconds:
            request = GenerationRequest.model_validate(next(requests))
            image = await engine.generate(request)
            rows = 2 if request.guidance_scale > 1 else 1
            pixels = image.size.height * image.size.width
            work = request.num_inference_steps * rows * pixels / 1e6
            done.append((time.perf_counter() - started, work))

    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
    readings.cancel()
    total = time.perf_counter() - started
    return {
        "images/s": round(len(done) / total, 3),
        "megapixel steps/s": round(sum(work for _, work in done) / total, 2),
        "of the first half": _rate(done, seconds * FIRST_SHARE, seconds / 2),
        "of the second half": _rate(done, seconds / 2, seconds),
        "GPU, first, median, last": gauge.summary(),
    }


def _rate(done: list[tuple[float, float]], start: float, stop: float) -> float:
    """Compute the rate of what was done between two moments, megapixel steps a second."""
    return round(sum(work for when, work in done if start <= when < stop) / (stop - start), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model directory of a BentoML store")
    parser.add_argument("--size", type=int, default=FLOP_SIZE, help="pixels, both sides")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--ways", nargs="+", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--name", default="gpu_sustained", help="of the result's file")
    options = parser.parse_args()
    try:
        device = choose_device("auto", model_bytes=0 if options.model else RANDOM_BYTES)
    except SettingsError as error:
        sys.exit(str(error))
    result: dict[str, Any] = surroundings(device) | {"size": options.size, "in flight": IN_FLIGHT}
    with contextlib.nullcontext(options.model) if options.model else random_model() as model:
        for way in options.ways:
            engine = Engine.load(model, Settings(**WAYS[way]))
            loads = {
                "equal": Case(20, IN_FLIGHT).requests(options.size),
                "mixed": mixed_requests(options.size),
            }
            rates: dict[str, Any] = {"plan": str(engine.plan)}
            for load, requests in loads.items():
                asyncio.run(sustain(engine, requests, options.seconds / 6))  # to warm up
                rates[load] = asyncio.run(sustain(engine, requests, options.seconds))
            equal, mixed = (rates[load]["megapixel steps/s"] for load in loads)
            rates["mixed over equal"] = round(mixed / equal, 3)
            result[way] = rates
            engine.close()
            gc.collect()
            torch.cuda.empty_cache()
            write_result(options.name, result, keep=device.type == "cuda")


if __name__ == "__main__":
    main()
