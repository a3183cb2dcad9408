"""What do LoRAs cost: 16 requests of six different sets, of 20 imported, beside none?

The LoRAs are files of every kind, imported as users do. In one process, on one model, the same 16
requests go to the engine at once (a) without LoRAs, (b) with six sets, among them combinations of
three and no LoRAs at all, (c) with the same sets where a UNet call takes one set, and (d) where
nothing is kept of a set when another takes its place. The ways take turns; medians are kept. Then
every image of (b) is held against its solo run, and the base's weights against what was loaded.
Last, what a LoRA adds to a single request when it is at hand, but not with these weights: the same
request with weights that change every time, beside weights that don't.

    python benchmarks/loras.py [--rounds 5] [--size 128] [--steps 20] [--loras 20]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, demo_model, surroundings, write_result

from lpw_sdxl.addon.installed import find_installed
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.engine import Engine
from lpw_sdxl.lora.targets import read_targets
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings
from tests.forge.lora import LoraOptions, write_lora
from tests.forge.lora_factors import SyntheticKind as Kind

KINDS = (Kind.LORA, Kind.LOCON, Kind.DORA, Kind.LOHA, Kind.LOKR)
SETS: tuple[dict[str, float], ...] = (
    {},
    {"style-00": 0.8},
    {"style-01": 1.0, "style-05": -0.5},
    {"style-02": 0.7, "style-06": 0.4, "style-10": 0.3},
    {"style-03": 0.9, "style-07": 0.6},
    {"style-04": 1.2, "style-11": 0.5, "style-15": -0.3},
)
REQUESTS = 16


def import_loras(model: Path, home: Path, count: int) -> Registry:
    """Write LoRAs of all kinds for a model, and import them with the users' command."""
    targets = read_targets(model)
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    for number in range(count):
        file = home / f"style-{number:02}.safetensors"
        kind = KINDS[number % len(KINDS)]
        options = LoraOptions(kind=kind, seed=number, rank=8, alpha=4.0, strength=0.3)
        write_lora(file, targets, options)
        command = [sys.executable, "model_import.py", "lora", str(file)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        print(f"{number + 1} of {count}: {kind}, {done.stdout.split()[-1]}")
    return find_installed(model, sorted((home / "models").glob("lora-*/*/")))


def make_requests(options: argparse.Namespace, *, has_loras: bool) -> list[GenerationRequest]:
    return [
        GenerationRequest.model_validate(
            {
                "prompt": f"a lighthouse at dusk, number {number}",
                "num_inference_steps": options.steps,
                "seed": number,
                "width": options.size,
                "height": options.size,
                "loras": [
                    {"name": name, "weight": weight}
                    for name, weight in SETS[number % len(SETS)].items()
                    if has_loras
                ],
            }
        )
        for number in range(REQUESTS)
    ]


def at_once(engine: Engine, requests: list[GenerationRequest]) -> tuple[float, list[Any]]:
    async def run() -> list[Any]:
        return [
            image.pixels
            for image in await asyncio.gather(*(engine.generate(one) for one in requests))
        ]

    started = time.perf_counter()
    pixels = asyncio.run(run())
    return time.perf_counter() - started, pixels


@dataclass(frozen=True)
class Way:
    """A way to share the device. One engine runs all ways: several would slow each other down."""

    max_sets: int | None = None
    kept_bytes: int | None = None

    @contextmanager
    def taken_by(self, engine: Engine) -> Iterator[None]:
        """Make an idle engine work this way."""
        loop: Any = engine._loop
        merged = loop.stages.adapters._merged
        mixing, max_bytes = loop._active._mixing, merged.max_bytes
        if self.max_sets is not None:
            loop._active._mixing = replace(mixing, max_sets=self.max_sets)
        if self.kept_bytes is not None:
            merged.max_bytes = self.kept_bytes
            merged.make_room(self.kept_bytes)
        try:
            yield
        finally:
            loop._active._mixing, merged.max_bytes = mixing, max_bytes


def added_steps(engine: Engine, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure the cost of beginning an image with a merged LoRA, in UNet calls' time; medians.

    `switched to`: its weights were used before, and the image before had none.
    `made anew`: its factors are at hand, the weights of all three networks are made for a strength
    that is new, and the prompt is encoded with it, since it changes the text encoders too.
    """
    plain = make_requests(options, has_loras=False)[0]
    added: dict[str, dict[str, float]] = {}
    for index, kind in enumerate(KINDS):

        def request(weight: float, name: str = f"style-{index:02}") -> GenerationRequest:
            fields = plain.model_dump() | {"loras": [{"name": name, "weight": weight}]}
            return GenerationRequest.model_validate(fields)

        seconds: dict[str, list[float]] = {"again": [], "switched to": [], "made anew": []}
        at_once(engine, [request(0.5)])
        for number in range(2 * options.rounds):
            at_once(engine, [request(0.5)])
            seconds["again"].append(at_once(engine, [request(0.5)])[0])
            at_once(engine, [plain])
            seconds["switched to"].append(at_once(engine, [request(0.5)])[0])
            seconds["made anew"].append(at_once(engine, [request(0.51 + number / 1000)])[0])
        medians = {way: statistics.median(values) for way, values in seconds.items()}
        again = medians.pop("again")
        added[kind] = {
            way: round((median - again) / (again / options.steps), 2)
            for way, median in medians.items()
        }
    return added


def base_weights(engine: Engine) -> dict[str, str]:
    """Hash every weight, without torch: two threads of a process that compute slow each other."""
    modules = [engine.pipeline.unet, *engine.pipeline.prompt_encoder.models]
    return {
        f"{index}.{name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for index, module in enumerate(modules)
        for name, tensor in module.state_dict().items()
    }


def measure(model: Path, addons: Registry, options: argparse.Namespace) -> dict[str, Any]:
    engine = Engine.load(model, Settings(), addons=addons)
    before = base_weights(engine)
    plain = make_requests(options, has_loras=False)
    mixed = make_requests(options, has_loras=True)
    ways = {
        "no LoRAs": (plain, Way()),
        "six sets": (mixed, Way()),
        "six sets, one a call": (mixed, Way(max_sets=1)),
        "six sets, nothing kept": (mixed, Way(max_sets=1, kept_bytes=1)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):  # the first warms up
        for name, (requests, way) in ways.items():
            with way.taken_by(engine):
                took, pixels = at_once(engine, requests)
            if number:
                seconds[name].append(took)
            if name == "six sets":
                together = pixels
        print(f"round {number} of {options.rounds}:", {n: s[-1:] for n, s in seconds.items()})
    worst = 0
    for request, image in zip(mixed, together, strict=True):
        alone = at_once(engine, [request])[1][0]
        worst = max(worst, int(np.abs(alone.astype(int) - image.astype(int)).max()))
    added = added_steps(engine, options)
    engine.close()
    after = base_weights(engine)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return surroundings(engine.pipeline.device) | {
        "requests": REQUESTS,
        "steps": options.steps,
        "size": f"{options.size}x{options.size}",
        "imported": len(addons.loras),
        "median_seconds": {name: round(value, 3) for name, value in medians.items()},
        "throughput_beside_no_loras": {
            name: round(medians["no LoRAs"] / value, 2) for name, value in medians.items()
        },
        "grey_levels_from_solo_run": worst,
        "steps_added_by_a_lora_at_hand": added,
        "base_weights_changed": sum(digest != after[name] for name, digest in before.items()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--loras", type=int, default=20)
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    with tempfile.TemporaryDirectory() as home:
        model = demo_model(Path(home))
        addons = import_loras(model, Path(home), options.loras)
        result = measure(model, addons, options)
    write_result("loras", result)


if __name__ == "__main__":
    main()
