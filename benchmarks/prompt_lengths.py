"""Prompts of different lengths in one step: is it faster to mask the padding or to group lengths?

Eight images of one size, guidance on: their UNet rows go through one call, padded to the longest
and masked, or through one call for each length without a mask. The UNet is called from the main
thread, as libgomp is at its best there. Both ways are paired in every round.

    python benchmarks/prompt_lengths.py [--rounds 15] [--model DIRECTORY] [--size PIXELS]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from common import demo_model, surroundings

from lpw_sdxl.conditioning import PromptPair
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.diffusion.schedulers import make_scheduler, own_scheduler
from lpw_sdxl.diffusion.step import Denoising, Guidance, predict
from lpw_sdxl.engine.memory import choose_device
from lpw_sdxl.engine.policy import MixedLengths, share_calls
from lpw_sdxl.schema import ImageSize

HERE = Path(__file__).parent
LOADS: dict[str, tuple[str, Sequence[int]]] = {  # style, tokens of the eight prompts
    "lpw, 1 to 300 tokens": ("lpw", [1 + 43 * number for number in range(8)]),
    "lpw, two lengths": ("lpw", [20, 20, 20, 20, 120, 120, 120, 120]),
    "a1111, 1 to 300 tokens": ("a1111", [1 + 43 * number for number in range(8)]),
    "a1111, one of 300 tokens": ("a1111", [20, 20, 20, 20, 20, 20, 20, 300]),
    "lpw, one length": ("lpw", [20] * 8),
}


def denoisings(
    pipeline: Pipeline, style: str, lengths: Sequence[int], size: int
) -> list[Denoising]:
    """Eight images at their first step."""
    pairs = [PromptPair("fox " * length, "blurry", style) for length in lengths]
    name = own_scheduler(pipeline.scheduler_config)
    return [
        Denoising(
            conditioning=conditioning,
            guidance=Guidance(5.0),
            scheduler=make_scheduler(name, pipeline.scheduler_config, 30),
            size=ImageSize(size, size),
            seed=seed,
            device=pipeline.device,
        )
        for seed, conditioning in enumerate(pipeline.prompt_encoder.encode_many(pairs))
    ]


def step(pipeline: Pipeline, images: list[Denoising], way: MixedLengths) -> tuple[float, int]:
    """Predict once for all; seconds and UNet calls."""
    calls = share_calls([length for one in images for length in one.row_lengths], way)
    synchronize = torch.cuda.synchronize if pipeline.device.type == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    predict(pipeline.unet, images, calls)
    synchronize()
    return time.perf_counter() - started, len(calls)


def measure(pipeline: Pipeline, size: int, rounds: int) -> dict[str, dict[str, float | int]]:
    results: dict[str, dict[str, float | int]] = {}
    for load, (style, lengths) in LOADS.items():
        images = denoisings(pipeline, style, lengths, size)
        times: dict[MixedLengths, list[float]] = {way: [] for way in MixedLengths}
        calls = {}
        for number in range(rounds + 2):
            for way in MixedLengths:
                took, calls[way] = step(pipeline, images, way)
                if number > 1:  # the first two warm up
                    times[way].append(took)
        medians = {way: statistics.median(values) for way, values in times.items()}
        results[load] = {
            **{f"{way}_milliseconds": round(1e3 * medians[way], 1) for way in MixedLengths},
            "calls_grouped": calls[MixedLengths.GROUP],
            "group_takes_times_mask": round(
                medians[MixedLengths.GROUP] / medians[MixedLengths.MASK], 2
            ),
        }
        print(load, results[load])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    options = parser.parse_args()
    device = choose_device("auto")
    with tempfile.TemporaryDirectory() as home:
        pipeline = Pipeline.load(options.model or demo_model(Path(home)), device)
        results = measure(pipeline, options.size, options.rounds)
    result = surroundings(device) | {
        "size": f"{options.size}x{options.size}",
        "dtype": str(pipeline.dtype),
        "rounds": options.rounds,
        "median_milliseconds_of_a_step": results,
    }
    file = HERE / "results" / f"prompt_lengths_{device.type}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
