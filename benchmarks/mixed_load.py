"""How much faster are eight different requests together than one after the other?

One process, one model: eight requests of different steps, guidance, prompt lengths and schedulers
go (a) to the engine at once, (b) to the engine one by one, (c) to Diffusers' own pipeline one by
one, given our embeddings. The three are paired in every round; medians over the rounds are kept.

    python benchmarks/mixed_load.py [--rounds 5] [--model DIRECTORY] [--size PIXELS]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from common import demo_model, surroundings, write_result
from diffusers import StableDiffusionXLPipeline

from lpw_sdxl.diffusion.latents import draw_noise, seeded_generator
from lpw_sdxl.diffusion.schedulers import make_scheduler
from lpw_sdxl.engine import Engine
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings

SCHEDULERS = ("Euler", "Euler a", "DPM++ 2M Karras", "DDIM")


def mixed_requests(size: int) -> list[GenerationRequest]:
    """Eight requests: 10 to 30 steps, guidance 2 to 9, prompts of 1 to 300 tokens."""
    return [
        GenerationRequest.model_validate(
            {
                "prompt": " ".join(["fox", *["snow"] * (number * 43)]),
                "negative_prompt": "blurry",
                "num_inference_steps": 10 + round(number * 20 / 7),
                "guidance_scale": 2.0 + number,
                "scheduler": SCHEDULERS[number % len(SCHEDULERS)],
                "seed": number,
                "width": size,
                "height": size,
            }
        )
        for number in range(8)
    ]


async def at_once(engine: Engine, requests: list[GenerationRequest]) -> None:
    await asyncio.gather(*(engine.generate(request) for request in requests))


async def one_by_one(engine: Engine, requests: list[GenerationRequest]) -> None:
    for request in requests:
        await engine.generate(request)


def stock(
    engine: Engine, pipeline: StableDiffusionXLPipeline, requests: list[GenerationRequest]
) -> None:
    for request in requests:
        spec = engine.decide(request)
        [embeds] = engine.pipeline.prompt_encoder.encode_many(spec.first.prompts.pairs)
        pipeline.scheduler = make_scheduler(
            SchedulerName(spec.record.scheduler),
            engine.pipeline.scheduler_config,
            request.num_inference_steps,
        )
        generator = seeded_generator(spec.record.seed)
        pipeline(
            prompt_embeds=embeds.prompt_embeds[None],
            negative_prompt_embeds=embeds.negative_prompt_embeds[None],
            pooled_prompt_embeds=embeds.pooled_prompt_embeds[None],
            negative_pooled_prompt_embeds=embeds.negative_pooled_prompt_embeds[None],
            latents=draw_noise(spec.size, generator),
            generator=generator,
            height=spec.size.height,
            width=spec.size.width,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
        )


def stock_process(model: Path, size: int, orders: Connection) -> None:
    """Time the stock pipeline once for each order received.

    It has a process of its own: libgomp slows every parallel region of a process by half as soon as
    two of its threads (here the engine's and this one) have a pool of OpenMP threads each.
    """
    engine = Engine.load(model, Settings())  # only for its encoder and its decisions
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        model, torch_dtype=engine.pipeline.dtype, local_files_only=True
    ).to(engine.pipeline.device)
    pipeline.set_progress_bar_config(disable=True)
    requests = mixed_requests(size)
    while orders.recv():
        started = time.perf_counter()
        stock(engine, pipeline, requests)
        orders.send(time.perf_counter() - started)


def timed(work: Callable[[], Awaitable[None]]) -> float:
    async def run() -> None:
        await work()

    started = time.perf_counter()
    asyncio.run(run())
    return time.perf_counter() - started


def measure(model: Path, size: int, rounds: int) -> tuple[dict[str, list[float]], torch.device]:
    """Warm up, then time the three ways in turn; return the seconds for all eight images."""
    context = multiprocessing.get_context("spawn")
    orders, theirs = context.Pipe()
    process = context.Process(target=stock_process, args=(model, size, theirs), daemon=True)
    process.start()
    engine = Engine.load(model, Settings())
    requests = mixed_requests(size)

    def ask_stock() -> float:
        orders.send(True)
        return float(orders.recv())

    ways: dict[str, Callable[[], float]] = {
        "engine, at once": lambda: timed(lambda: at_once(engine, requests)),
        "engine, one by one": lambda: timed(lambda: one_by_one(engine, requests)),
        "stock pipeline, one by one": ask_stock,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():
        print(f"warming up: {name}, {way():.2f} s")
    for number in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
        last = {name: round(values[-1], 2) for name, values in seconds.items()}
        print(f"round {number + 1} of {rounds}: {last}")
    orders.send(False)
    process.join()
    engine.close()
    return seconds, engine.pipeline.device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        model = options.model or demo_model(Path(home))
        seconds, device = measure(model, options.size, options.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = surroundings(device) | {
        "size": f"{options.size}x{options.size}",
        "images": len(mixed_requests(options.size)),
        "median_seconds": {name: round(value, 3) for name, value in medians.items()},
        "times_faster_at_once": {
            name: round(value / medians["engine, at once"], 2) for name, value in medians.items()
        },
    }
    write_result("mixed_load", result)


if __name__ == "__main__":
    main()
