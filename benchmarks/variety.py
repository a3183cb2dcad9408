"""What is the cost of requests that differ?

Eight images are always in flight in one engine. Either they are alike, 20 steps of DPM++ 2M Karras
and prompts of 75 words, or they differ in all but size: 10 to 30 steps, guidance 2 to 9, seven
schedulers that call the UNet once a step, prompts of 4 to 144 words; the same on average. Both in
turn, several rounds; UNet rows a second are compared, so that the work is the same.

Bar: mixed at least 0.9 of the rate of those alike.

    python benchmarks/variety.py [--rounds 5] [--seconds 20] [--model DIRECTORY] [--size PIXELS]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import surroundings, write_result
from prometheus_client import CollectorRegistry
from services import OtherWork, model_to_serve

from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.metrics import EngineMetrics, Stage
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings

IN_FLIGHT = 8
MIN_SHARE = 0.9
STEPS = 20
MOST_WORDS = 140
RAMP_S = 3.0
SCHEDULERS = ("Euler", "Euler a", "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE", "DDIM", "UniPC")


def alike(size: int) -> Iterator[GenerationRequest]:
    """Yield requests without end that differ only by their seeds."""
    for seed in itertools.count():
        yield GenerationRequest(
            prompt=f"a red fox {seed}" + " snow" * (MOST_WORDS // 2),
            negative_prompt="blurry",
            num_inference_steps=STEPS,
            guidance_scale=6.0,
            scheduler=SchedulerName.DPMPP_2M_KARRAS,
            seed=seed,
            width=size,
            height=size,
        )


def mixed(size: int) -> Iterator[GenerationRequest]:
    """Yield requests without end that differ in all but their size."""
    choice = random.Random(0)
    for seed in itertools.count():
        yield GenerationRequest.model_validate(
            {
                "prompt": f"a red fox {seed}" + " snow" * choice.randint(0, MOST_WORDS),
                "negative_prompt": "blurry",
                "num_inference_steps": choice.randint(10, 30),
                "guidance_scale": choice.uniform(2, 9),
                "scheduler": choice.choice(SCHEDULERS),
                "seed": seed,
                "width": size,
                "height": size,
            }
        )


class Counted:
    """An engine's counts and times, read from its metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    @property
    def rows(self) -> float:
        """Count the UNet rows so far."""
        return self._registry.get_sample_value("lpw_sdxl_step_rows_sum") or 0.0

    def seconds(self, stage: Stage) -> float:
        """Add up the seconds that a stage has taken so far."""
        labels = {"stage": stage.value}
        return self._registry.get_sample_value("lpw_sdxl_stage_seconds_sum", labels) or 0.0


@dataclass(frozen=True)
class Rate:
    """Throughput and times: UNet rows a second, and the milliseconds of each stage per row."""

    rows_per_second: float
    milliseconds: dict[str, float]


async def row_rate(
    engine: Engine, counted: Counted, requests: Iterator[GenerationRequest], seconds: float
) -> Rate:
    """Keep so many images in flight, and measure the work between two moments."""

    async def one_after_the_other() -> None:
        while True:
            await engine.generate(next(requests))

    clients = [asyncio.ensure_future(one_after_the_other()) for _ in range(IN_FLIGHT)]
    await asyncio.sleep(RAMP_S)
    stages = [Stage.ENCODE, Stage.STEP, Stage.DECODE]
    started, rows = time.perf_counter(), counted.rows
    before = [counted.seconds(stage) for stage in stages]
    await asyncio.sleep(seconds)
    took, rows = time.perf_counter() - started, counted.rows - rows
    after = [counted.seconds(stage) for stage in stages]
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    parts = zip(stages, before, after, strict=True)
    return Rate(
        rows / took,
        {str(stage): round(1000 * (done - begun) / rows, 2) for stage, begun, done in parts},
    )


def median_parts(rates: Sequence[Rate]) -> dict[str, float]:
    """Take the median of each stage's milliseconds."""
    return {
        name: statistics.median(rate.milliseconds[name] for rate in rates)
        for name in rates[0].milliseconds
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--model", type=Path, help="a model directory of a BentoML store")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    options = parser.parse_args()
    rates: dict[str, list[Rate]] = {"alike": [], "mixed": []}
    registry = CollectorRegistry()
    counted = Counted(registry)
    with model_to_serve(options.model) as model:
        engine = Engine.load(model, Settings(), EngineMetrics(registry))
        streams = {"alike": alike(options.size), "mixed": mixed(options.size)}
        other_work = OtherWork()
        for number in range(options.rounds):
            for name, stream in streams.items():
                rate = asyncio.run(row_rate(engine, counted, stream, options.seconds))
                rates[name].append(rate)
                print(f"round {number + 1} of {options.rounds}: {name}, {rate}")
        others = other_work.share()
        engine.close()
    shares = [
        one.rows_per_second / other.rows_per_second
        for one, other in zip(rates["mixed"], rates["alike"], strict=True)
    ]
    share = statistics.median(shares)
    result = surroundings(engine.pipeline.device) | {
        "size": options.size,
        "in_flight": IN_FLIGHT,
        "rows_per_second": {
            name: round(statistics.median(rate.rows_per_second for rate in values), 1)
            for name, values in rates.items()
        },
        "milliseconds_a_row": {name: median_parts(values) for name, values in rates.items()},
        "mixed_over_alike": round(share, 3),
        "bars_met": {f"mixed at least {MIN_SHARE} of those alike": share >= MIN_SHARE},
        "others_share_of_cores": others,
    }
    write_result("variety", result)


if __name__ == "__main__":
    main()
