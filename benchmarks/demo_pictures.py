"""Does the demo model draw what its prompts state?

64 captions of scenes that it never saw in training, in four wordings of which one is also the
training's, with the model's own steps and guidance: alone, after 150 and more tokens that mean
nothing, and without size and place, which then mean large and center. 32 seeds of a caption with
two colours whose first one is weighted. Pictures are judged by demo/looking.py: what they show, how
near their outlines are to the drawn ones, and their colours to the named ones.

    python benchmarks/demo_pictures.py [--model DIRECTORY] [--sheet FILE.png] [--no-result]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from common import ROOT, demo_model, surroundings, write_result
from PIL import Image

from demo.captions import IMPLIED
from demo.looking import Seen, distance_to, look
from demo.scene import HELD_OUT, SHAPES, Scene
from lpw_sdxl.engine import Engine
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings

SHEET = ROOT / "docs" / "demo-sheet.png"
CAPTIONS = 64
SEEDS = 32
TRUE_OUTLINE = 0.9  # of 1, by demo/looking.py
TRUE_COLOUR = 25.0  # distance to the named one, levels of 255
FORMS = (
    "a {size} {colour} {shape} on a {background} background, {place}",
    "minimalist poster of one {size} {colour} {shape}, {place}, plain {background} background",
    "best quality, {background} background, {shape}, {colour} {shape}, {size}, {place}",
    "{colour} {shape}, {place}, {size}, {background} background, vector art",
)
FILLER = (
    "masterpiece, best quality, highly detailed, sharp focus, an award winning studio photograph, "
    "soft volumetric light, intricate texture, trending on every gallery of the year, shot with a "
    "vintage lens during golden hour, delicate atmosphere, dust drifting through morning air, "
    "cinematic composition, muted mood, gentle film grain, elegant brushwork, dreamlike scenery, "
    "an old lighthouse keeper remembers stormy nights and distant ships, quiet harbour, seagulls, "
    "wooden boats, fishing nets drying, cobblestone streets after rain, warm lanterns, people "
    "talking softly, a cat sleeping near flower pots, laundry moving with the wind, church bells, "
    "smell of fresh bread, children playing with paper kites, musicians tuning violins, old "
    "stories told beside a fire, rain against windows, steam rising from cups, "
)  # 150 tokens and more
IMPLYING_FORMS = (
    "a {colour} {shape} on a {background} background",
    "{background} background, {colour} {shape}",
)
WEIGHTED = "a ({colour}:{weight}) circle on a {background} background, center"


async def draw_all(
    engine: Engine,
    prompts: Sequence[str],
    seeds: Sequence[int],
) -> list[Seen]:
    """Draw and judge pictures, many at once."""
    images = await asyncio.gather(
        *(
            engine.generate(request(prompt, seed))
            for prompt, seed in zip(prompts, seeds, strict=True)
        )
    )
    return [look(image.pixels) for image in images]


def request(prompt: str, seed: int) -> GenerationRequest:
    return GenerationRequest(prompt=prompt, seed=seed)


def shares_right(scenes: Sequence[Scene], seen: Sequence[Seen]) -> dict[str, float]:
    """Compute for each attribute the share of pictures in which it is as stated."""
    return {
        name: statistics.mean(
            one.scene is not None and getattr(one.scene, name) == getattr(scene, name)
            for scene, one in zip(scenes, seen, strict=True)
        )
        for name in Scene._fields
    }


def how_true(scenes: Sequence[Scene], seen: Sequence[Seen]) -> dict[str, object]:
    """Measure outlines and colours against what is stated."""
    outlines = {
        shape: [
            one.outlines[shape]
            for scene, one in zip(scenes, seen, strict=True)
            if scene.shape == shape
        ]
        for shape in SHAPES
    }
    distances = {
        name: [
            distance_to(getattr(one, name), getattr(scene, name))
            for scene, one in zip(scenes, seen, strict=True)
        ]
        for name in ("colour", "background")
    }
    every = [value for values in outlines.values() for value in values]
    return {
        "true outlines": share_of(every, lambda value: value >= TRUE_OUTLINE),
        "median outline": {
            shape: round(statistics.median(values), 3) for shape, values in outlines.items()
        },
        "median distance": {
            name: round(statistics.median(values), 1) for name, values in distances.items()
        },
        "true": {
            name: share_of(values, lambda value: value < TRUE_COLOUR)
            for name, values in distances.items()
        },
    }


def share_of(values: Sequence[float], is_right: Callable[[float], bool]) -> float:
    return round(statistics.mean(map(is_right, values)), 3)


async def measure(engine: Engine) -> dict[str, object]:
    chance = random.Random(7)
    scenes = chance.sample(HELD_OUT, CAPTIONS)
    captions = [FORMS[i % len(FORMS)].format(**scenes[i]._asdict()) for i in range(CAPTIONS)]
    seeds = list(range(CAPTIONS))
    filler_tokens = engine.pipeline.prompt_encoder.reader.read(FILLER).texts[0].token_count
    short = await draw_all(engine, captions, seeds)
    long = await draw_all(engine, [FILLER + caption for caption in captions], seeds)
    left_open = [
        IMPLYING_FORMS[i % len(IMPLYING_FORMS)].format(**scenes[i]._asdict())
        for i in range(CAPTIONS)
    ]
    opened = await draw_all(engine, left_open, seeds)
    weights = await weighted(engine)
    return {
        "short": shares_right(scenes, short),
        "outlines and colours": how_true(scenes, short),
        "after filler": shares_right(scenes, long),
        "filler tokens": filler_tokens,
        "size and place left open": shares_right(
            [scene._replace(**IMPLIED) for scene in scenes], opened
        ),
        "weights": weights,
        "seconds a picture": await seconds_alone(engine, captions[0]),
    }


async def weighted(engine: Engine) -> dict[str, float]:
    """Compute for some colours the share of seeds where weight 1.6 is nearer to it than 0.4."""
    shares = {}
    for colour, background in (("red", "blue"), ("green", "white"), ("yellow", "purple")):
        seen = [
            await draw_all(
                engine,
                [WEIGHTED.format(colour=colour, background=background, weight=weight)] * SEEDS,
                list(range(SEEDS)),
            )
            for weight in ("1.6", "0.4")
        ]
        nearer = (
            distance_to(strong.colour, colour) < distance_to(weak.colour, colour)
            for strong, weak in zip(*seen, strict=True)
        )
        shares[f"{colour} on {background}"] = statistics.mean(nearer)
    return shares


async def seconds_alone(engine: Engine, caption: str) -> float:
    """Time one picture, alone; return the median of five after one to warm up."""
    times = []
    for seed in range(6):
        began = time.perf_counter()
        (await engine.generate(request(caption, seed))).encode()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times[1:]), 3)


async def draw_sheet(engine: Engine, path: Path, columns: int = 8, rows: int = 4) -> None:
    """Draw a contact sheet of scenes that were left out of training."""
    scenes = random.Random(3).sample(HELD_OUT, columns * rows)
    images = await asyncio.gather(
        *(
            engine.generate(request(FORMS[0].format(**scene._asdict()), seed))
            for seed, scene in enumerate(scenes)
        )
    )
    lines = [
        np.concatenate([image.pixels for image in images[start : start + columns]], axis=1)
        for start in range(0, len(images), columns)
    ]
    Image.fromarray(np.concatenate(lines)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="a model directory; default: the demo's")
    parser.add_argument("--sheet", type=Path, default=SHEET, help="the contact sheet's file")
    parser.add_argument("--no-result", action="store_true", help="keep neither result nor sheet")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        directory = arguments.model or demo_model(Path(home))
        engine = Engine.load(directory, Settings(device="cpu"))
        result = asyncio.run(measure(engine))
        if not arguments.no_result:
            asyncio.run(draw_sheet(engine, arguments.sheet))
        engine.close()
    write_result(
        "demo_pictures",
        surroundings(torch.device("cpu")) | result,
        keep=not arguments.no_result,
    )


if __name__ == "__main__":
    main()
