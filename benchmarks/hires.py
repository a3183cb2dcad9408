"""What do second passes cost, and whom do they delay?

A stream, a quarter of it with a second pass at 1.5 times the size, against a plain service that
makes two calls of Diffusers' pipelines for it: throughput and latency as in picture_stream.py. Then
one text of 128 pixels beside eight second passes and beside eight texts of their size, in turn.

Bars: throughput at least 2 times the plain service's, p95 at most half; the text beside second
passes at most 1.10 times as slow as beside texts.

    python benchmarks/hires.py [--rounds 3] [--images 64] [--beside 7] [--size PIXELS]
        [--model DIRECTORY] [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import service_surroundings, write_result
from load import own_process
from picture_stream import LEAST_THROUGHPUT, MOST_P95, add_stream_options, measure_stream
from services import OtherWork, model_to_serve
from workload import Stream

from lpw_sdxl.schema import GenerationRequest
from serving import Plan, paired, rounded

AT_ONCE, STEPS, MOST_DELAY = 8, 20, 1.10
SMALL = 128


def request(size: int, seed: int, **fields: Any) -> GenerationRequest:
    common = {"prompt": "a castle in the snow", "width": size, "height": size, "seed": seed}
    return GenerationRequest.model_validate(common | {"num_inference_steps": STEPS} | fields)


def measure_beside(model: Path, rounds: int) -> dict[str, Any]:
    """Time a small text beside eight second passes, and beside eight texts of their size."""
    from lpw_sdxl.engine import Engine  # noqa: PLC0415 - the processes that send stay light
    from lpw_sdxl.engine.progress import ImageProgress, Listener  # noqa: PLC0415
    from lpw_sdxl.settings import Settings  # noqa: PLC0415

    engine = Engine.load(model, Settings())
    large = 2 * SMALL

    async def beside(others: Sequence[GenerationRequest], first_calls: int) -> float:
        """Start the others, and the text once they all are in their larger calls."""
        waiting = len(others)
        all_there = asyncio.Event()
        loop = asyncio.get_running_loop()

        def note(progress: ImageProgress) -> None:
            nonlocal waiting
            if progress.unet_calls_done == first_calls + 1:
                waiting -= 1
                if not waiting:
                    loop.call_soon_threadsafe(all_there.set)

        jobs = [asyncio.ensure_future(engine.generate(one, Listener(note))) for one in others]
        await all_there.wait()
        started = time.perf_counter()
        await engine.generate(request(SMALL, 0))
        seconds = time.perf_counter() - started
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        return seconds

    # So long that the text is done before the first of them.
    long = {"num_inference_steps": 4 * STEPS}
    second = {"scale": 2, "strength": 1.0, "steps": 4 * STEPS}
    ways = {
        "second passes": [
            request(SMALL, seed, num_inference_steps=2, hires=second) for seed in range(AT_ONCE)
        ],
        "texts": [request(large, seed, **long) for seed in range(AT_ONCE)],
    }
    calls = {"second passes": 2, "texts": 0}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, others in ways.items():
            took = asyncio.run(beside(others, calls[way]))
            seconds[way] += [took] if number else []
    engine.close()
    return {way: rounded(values) for way, values in seconds.items()} | {
        "second passes / texts": paired(seconds["second passes"], seconds["texts"])
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_stream_options(parser)
    parser.add_argument("--beside", type=int, default=7, help="rounds of the small text")
    options = parser.parse_args()
    rounds, images = (1, 16) if options.quick else (options.rounds, options.images)
    with model_to_serve(options.model) as model, own_process() as client:
        others = OtherWork()
        beside = measure_beside(model, options.beside)
        beside_others = others.share()
        print(beside, flush=True)
        plan = Plan(model, images, options.size, options.threads, Stream.HIRES, rounds)
        device, stream = measure_stream(plan, client)
    result = service_surroundings(device, options.threads) | {
        "size": f"{options.size}x{options.size}",
        "images_per_round": images,
        "rounds": rounds,
        "a small text beside": beside,
        "beside_others_share_of_cores": beside_others,
        "stream": stream,
        "bars_met": {
            "throughput": stream["throughput ours / plain"]["median"] >= LEAST_THROUGHPUT,
            "p95": stream["p95 ours / plain"]["median"] <= MOST_P95,
            "a small text is not delayed": beside["second passes / texts"]["median"] <= MOST_DELAY,
            "no errors": not stream["errors"].total(),
        },
    }
    write_result("hires", result, keep=not options.quick)


if __name__ == "__main__":
    main()
