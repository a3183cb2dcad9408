"""What do prompts that change by step cost, and what does guidance in a part of the steps save?

Eight images at once, in one engine: with plain prompts, with alternations of two texts, and with
guidance in the middle 60 % of the steps. All in turn, several rounds; the seconds of each eight are
compared within a round.

Bars: alternations at least 0.85 of the plain ones' throughput, intervals at least 1.15 of it.

    python benchmarks/prompt_schedules.py [--rounds 7] [--model DIRECTORY] [--size PIXELS]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from common import surroundings, write_result
from services import OtherWork, model_to_serve

from lpw_sdxl.engine import Engine
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings

AT_ONCE = 8
STEPS = 20
BARS = {"alternation": 0.85, "interval": 1.15}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "a large red circle on a white background"},
    "alternation": {"prompt": "a large [red|blue] circle on a white background"},
    "interval": {
        "prompt": "a large red circle on a white background",
        "guidance_interval": [0.2, 0.8],
    },
}


async def draw(engine: Engine, fields: dict[str, Any], size: int, seed: int) -> float:
    """Draw eight images together; return the seconds that they took."""
    common = {
        "negative_prompt": "blurry",
        "prompt_style": "a1111",
        "num_inference_steps": STEPS,
        "width": size,
        "height": size,
    }
    requests = [
        GenerationRequest.model_validate(common | fields | {"seed": seed + index})
        for index in range(AT_ONCE)
    ]
    started = time.perf_counter()
    await asyncio.gather(*map(engine.generate, requests))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", type=Path, help="a model directory of a BentoML store")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    with model_to_serve(options.model) as model:
        engine = Engine.load(model, Settings())
        for fields in WAYS.values():
            asyncio.run(draw(engine, fields, options.size, 0))  # not counted
        other_work = OtherWork()
        for number in range(options.rounds):
            for name, fields in WAYS.items():
                took = asyncio.run(draw(engine, fields, options.size, 100 * number))
                seconds[name].append(took)
                print(f"round {number + 1} of {options.rounds}: {name}, {took:.2f} s")
        others = other_work.share()
        engine.close()
    ratios = {
        name: statistics.median(
            plain / took for plain, took in zip(seconds["plain"], seconds[name], strict=True)
        )
        for name in BARS
    }
    result = surroundings(engine.pipeline.device) | {
        "size": options.size,
        "at_once": AT_ONCE,
        "steps": STEPS,
        "seconds": {name: round(statistics.median(took), 3) for name, took in seconds.items()},
        "throughput_over_plain": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "bars_met": {
            f"{name} at least {bar} of plain": ratios[name] >= bar for name, bar in BARS.items()
        },
        "others_share_of_cores": others,
    }
    write_result("prompt_schedules", result)


if __name__ == "__main__":
    main()
