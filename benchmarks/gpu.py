"""How fast is full-size SDXL at 1024 x 1024, and where does the time go?

In one process with the engine: 20 and 30 steps, 1, 4 and 8 images in flight, time of each stage,
images a second, effective TFLOP/s, memory; beside it Diffusers' own pipeline, one image at a time.
Before, through a real `bentoml serve`: seconds until it is ready, images a second as PNG over HTTP.

Without --model a random checkpoint of full size is written and imported first (7 GB of disk twice;
random weights take exactly the time of trained ones). Meant for a CUDA device; `--size 128 --model
DEMO` runs the same on a CPU, where the figures mean nothing.

    python benchmarks/gpu.py [--model DIRECTORY] [--size 1024] [--images 24]
        [--half-decode] [--parts http engine stock …]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import ROOT, surroundings, write_result
from diffusers import StableDiffusionXLPipeline
from load import Client, keep_in_flight
from prometheus_client import CollectorRegistry
from services import our_service, running

from lpw_sdxl.engine import Engine
from lpw_sdxl.engine.device_choice import choose_device
from lpw_sdxl.engine.metrics import EngineMetrics, Stage
from lpw_sdxl.errors import SettingsError
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings
from tests.forge.checkpoint import SyntheticSize, write_checkpoint

# By torch.utils.flop_counter, a multiply-add as two; 77 tokens, 1024 x 1024. Attention's products
# are 0.784 of the UNet's; the often quoted 5.98 leaves them out.
UNET_TFLOP = 6.761
DECODE_TFLOP = 10.47
PROMPTS_TFLOP = 2 * 0.111
FLOP_SIZE = 1024
RANDOM_BYTES = 6_940_000_000  # of the random model, in half precision
ANCHORS = {
    "images/s, MLPerf v5.1, H200, fp8, 20 steps, no HTTP, no encoding": 2.40,
    "TFLOP/s, best published fp16 on an H100, TensorRT": 305,
    "TFLOP/s, what an H200's bf16 matrix units were measured to do": 790,
}
PROMPTS = ("a lighthouse at dusk, stormy sea", "a red fox in deep snow", "an old harbour town")


@dataclass(frozen=True)
class Case:
    """One measurement: steps of an image, images in flight."""

    steps: int
    in_flight: int

    def requests(self, size: int) -> Iterator[dict[str, Any]]:
        """Yield requests without end, each with a seed of its own."""
        for seed in itertools.count():
            yield {
                "prompt": PROMPTS[seed % len(PROMPTS)],
                "negative_prompt": "blurry",
                "num_inference_steps": self.steps,
                "guidance_scale": 6.0,
                "scheduler": "Euler",
                "seed": seed,
                "width": size,
                "height": size,
            }


CASES = [Case(20, 1), Case(20, 4), Case(20, 8), Case(30, 1), Case(30, 8)]
EIGHT = [Case(20, 8)]
WAYS: dict[str, tuple[dict[str, object], list[Case]]] = {
    "without CUDA graphs": ({"cuda_graphs": False}, CASES[:3]),
    "half decode": ({"half_decode": True}, EIGHT),
    "offloading": ({"offload": "always"}, EIGHT),
}


def tflop(steps: int) -> float:
    """Count an image's work with guidance, TFLOP."""
    return PROMPTS_TFLOP + steps * 2 * UNET_TFLOP + DECODE_TFLOP


async def with_engine(engine: Engine, case: Case, size: int, images: int) -> float:
    """Make images with so many always in flight; return the seconds for each."""
    requests = case.requests(size)
    left = itertools.count(1)

    async def one_after_the_other() -> None:
        while next(left) <= images:
            await engine.generate(GenerationRequest.model_validate(next(requests)))

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(case.in_flight)))
    return (time.perf_counter() - started) / images


def stage_seconds(registry: CollectorRegistry) -> dict[str, float]:
    """Read the time that each stage has taken so far, seconds."""
    return {
        stage.value: registry.get_sample_value("lpw_sdxl_stage_seconds_sum", {"stage": stage.value})
        or 0.0
        for stage in Stage
    }


def measure_engine(
    model: Path, settings: Settings, options: argparse.Namespace, cases: Sequence[Case]
) -> dict[str, Any]:
    registry = CollectorRegistry()
    started = time.perf_counter()
    engine = Engine.load(model, settings, EngineMetrics(registry))
    result: dict[str, Any] = {"load_seconds": round(time.perf_counter() - started, 1)}
    result["plan"] = str(engine.plan)
    print(engine.plan)
    rows = []
    for case in cases:
        asyncio.run(with_engine(engine, Case(4, case.in_flight), options.size, case.in_flight))
        before = stage_seconds(registry)
        images = max(options.images, 2 * case.in_flight)
        seconds = asyncio.run(with_engine(engine, case, options.size, images))
        after = stage_seconds(registry)
        row = {
            "steps": case.steps,
            "in flight": case.in_flight,
            "images/s": round(1 / seconds, 3),
            "seconds of each stage an image": {
                name: round((after[name] - before[name]) / images, 4) for name in after
            },
        }
        if options.size == FLOP_SIZE:
            row["TFLOP/s"] = round(tflop(case.steps) / seconds, 1)
        rows.append(row)
        print(row)
    engine.close()
    if engine.pipeline.device.type == "cuda":
        result["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return result | {"engine": rows}


def measure_stock(model: Path, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """Time Diffusers' pipeline as its documentation uses it, one image at a time."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        model, torch_dtype=dtype, local_files_only=True
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    rows = []
    for steps in (20, 30):
        case = Case(steps, 1)
        asked = itertools.islice(case.requests(options.size), 1 + max(2, options.images // 4))
        for number, request in enumerate(asked):
            if number == 1:
                started = time.perf_counter()
            request.pop("scheduler")
            generator = torch.Generator("cpu").manual_seed(request.pop("seed"))
            pipeline(**request, generator=generator)
        seconds = (time.perf_counter() - started) / number
        rows.append({"steps": steps, "images/s": round(1 / seconds, 3)})
        print("stock pipeline", rows[-1])
    return {"stock pipeline": rows}


def measure_http(model: Path, settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Time a real service, PNG and all."""
    started = time.perf_counter()
    asked = settings.model_dump(include={"half_decode"})
    with running(our_service(model, **asked), model, os.cpu_count() or 1) as service:
        result: dict[str, Any] = {"ready_seconds": round(time.perf_counter() - started, 1)}
        rows = []
        for case in (Case(20, 8), Case(20, 1), Case(30, 8)):
            seconds = asyncio.run(over_http(service.url, case, options))
            rows.append(
                {
                    "steps": case.steps,
                    "in flight": case.in_flight,
                    "images/s": round(1 / seconds, 3),
                }
            )
            print("over HTTP, PNG", rows[-1])
    return result | {"http": rows}


async def over_http(url: str, case: Case, options: argparse.Namespace) -> float:
    """Make images through HTTP; return the seconds for each."""
    images = max(options.images, 2 * case.in_flight)
    async with Client(url) as client:
        warm = itertools.count(1)
        await keep_in_flight(
            client,
            Case(4, case.in_flight).requests(options.size),
            case.in_flight,
            lambda: next(warm) > case.in_flight,
        )
        sent = itertools.count(1)
        started = time.perf_counter()
        answers = await keep_in_flight(
            client, case.requests(options.size), case.in_flight, lambda: next(sent) > images
        )
        seconds = time.perf_counter() - started
    bad = [answer.status for answer in answers if answer.status != 200]
    assert not bad, bad
    return seconds / len(answers)


@contextlib.contextmanager
def random_model() -> Iterator[Path]:
    """Write and import a random checkpoint of full size."""
    with tempfile.TemporaryDirectory(prefix="lpw-sdxl-gpu-") as folder:
        file = Path(folder) / "random.safetensors"
        print("writing a random checkpoint of full size")
        write_checkpoint(file, SyntheticSize.FULL)
        environment = os.environ | {"BENTOML_HOME": folder, "BENTOML_DO_NOT_TRACK": "True"}
        done = subprocess.run(
            [sys.executable, "model_import.py", "checkpoint", str(file)],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        file.unlink()
        yield Path(folder) / "models" / Path(*done.stdout.split()[-1].split(":"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a model directory of a BentoML store")
    parser.add_argument("--size", type=int, default=FLOP_SIZE, help="pixels, both sides")
    parser.add_argument("--images", type=int, default=24, help="of each measurement")
    parser.add_argument("--half-decode", action="store_true")
    parts = ["http", "without CUDA graphs", "engine", "half decode", "offloading", "stock"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--name", default="gpu", help="of the result's file")
    options = parser.parse_args()
    settings = Settings(half_decode=options.half_decode)
    try:  # before the random model is written
        device = choose_device(settings.device, model_bytes=0 if options.model else RANDOM_BYTES)
    except SettingsError as error:
        sys.exit(str(error))
    with contextlib.nullcontext(options.model) if options.model else random_model() as model:
        result: dict[str, Any] = surroundings(device) | {"size": options.size, "anchors": ANCHORS}
        for part in options.parts:
            result |= measure(part, model, settings, options)
            write_result(options.name, result, keep=device.type == "cuda")


def measure(
    part: str, model: Path, settings: Settings, options: argparse.Namespace
) -> dict[str, Any]:
    """Measure the part that the command line names."""
    gc.collect()
    torch.cuda.empty_cache()
    if part == "http":
        return measure_http(model, settings, options)
    if part == "stock":
        return measure_stock(model, choose_device(settings.device), options)
    if part == "engine":
        return measure_engine(model, settings, options, CASES)
    change, cases = WAYS[part]
    changed = settings.model_copy(update=change)
    return {part: measure_engine(model, changed, options, cases)}


if __name__ == "__main__":
    main()
