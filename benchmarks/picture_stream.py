"""How does the service compare with Diffusers' pipelines where half of the requests have a picture?

The stream: half text, half pictures to start from, otherwise as in serving.py. (a) Our service,
(b) a plain service around Diffusers' pipelines, one image at a time (`baselines/`). First each is
kept busy by more clients than it can serve: images a second; then the same Poisson stream comes to
each at 70 % of what (b) managed: latency. Rounds go a, b, a, b; ratios are medians of each round's.
Then one image alone, in the engine and in Diffusers' pipeline of its kind, in turn: from a picture,
and with a mask.

Bars: throughput at least 2 times (b)'s, p95 at most half of (b)'s, one image alone at most 1.10
times Diffusers'.

    python benchmarks/picture_stream.py [--rounds 3] [--images 64] [--solo 7] [--size PIXELS]
        [--model DIRECTORY] [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import service_surroundings, write_result
from load import OwnProcess, Target, own_process
from services import OtherWork, model_to_serve
from workload import Stream, requests

from lpw_sdxl.schema import GenerationRequest
from serving import (
    LOAD,
    OURS,
    PLAIN,
    Bench,
    Plan,
    Way,
    baseline,
    ours,
    paired,
    percentiles,
    rounded,
)

WAYS: Mapping[str, Way] = {
    OURS: Way(ours, Target()),
    PLAIN: Way(baseline("picture_service:PictureService"), Target("/make")),
}
FROM_PICTURE, WITH_MASK = "from a picture", "with a mask"
LEAST_THROUGHPUT, MOST_P95, MOST_SOLO = 2.0, 0.5, 1.10
SOLO_STEPS, SOLO_STRENGTH = 20, 0.75


def solo_request(kind: str, size: int) -> GenerationRequest:
    """Make the request of one image alone."""
    drawn = next(one for one in requests(Stream.PICTURES, size, 0) if "image" in one)
    fields = drawn | {"num_inference_steps": SOLO_STEPS, "strength": SOLO_STRENGTH}
    if kind == WITH_MASK:
        fields |= {"mask_image": mask_file(str(drawn["image"])), "paste_back": False}
    common = {"guidance_scale": 5.0, "scheduler": "Euler"}
    return GenerationRequest.model_validate(fields | common)


def mask_file(picture: str) -> str:
    """Make a mask of a picture's size, both as base64: the right half is repainted."""
    from PIL import Image  # noqa: PLC0415 - the processes that send requests stay light

    width, height = Image.open(io.BytesIO(base64.b64decode(picture))).size
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 2, 0, width, height))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def time_diffusers(model: Path, size: int, orders: Connection) -> None:
    """Time a pipeline of Diffusers once for each order. Its prompt is encoded, as ours is kept.

    It has a process of its own, as in mixed_load.py.
    """
    from diffusers import (  # noqa: PLC0415 - see `mask_file`
        StableDiffusionXLImg2ImgPipeline,
        StableDiffusionXLInpaintPipeline,
    )
    from PIL import Image  # noqa: PLC0415

    from lpw_sdxl.diffusion.latents import seeded_generator  # noqa: PLC0415
    from lpw_sdxl.engine import Engine  # noqa: PLC0415
    from lpw_sdxl.settings import Settings  # noqa: PLC0415

    engine = Engine.load(model, Settings())  # only for its encoder
    pipelines = {
        FROM_PICTURE: StableDiffusionXLImg2ImgPipeline.from_pretrained(
            model, torch_dtype=engine.pipeline.dtype, local_files_only=True
        ).to(engine.pipeline.device)
    }
    pipelines[WITH_MASK] = StableDiffusionXLInpaintPipeline(**pipelines[FROM_PICTURE].components)
    for pipeline in pipelines.values():
        pipeline.set_progress_bar_config(disable=True)
    while kind := orders.recv():
        request = solo_request(kind, size)
        embeds = engine.pipeline.prompt_encoder.encode(request.prompt, request.negative_prompt)
        started = time.perf_counter()
        assert request.image is not None
        picture = Image.open(io.BytesIO(request.image)).convert("RGB")
        more = {}
        if request.mask_image is not None:
            more = {
                "mask_image": Image.open(io.BytesIO(request.mask_image)),
                "height": picture.height,
                "width": picture.width,
            }
        pipelines[kind](
            prompt_embeds=embeds.prompt_embeds[None],
            negative_prompt_embeds=embeds.negative_prompt_embeds[None],
            pooled_prompt_embeds=embeds.pooled_prompt_embeds[None],
            negative_pooled_prompt_embeds=embeds.negative_pooled_prompt_embeds[None],
            image=picture,
            strength=request.strength,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            generator=seeded_generator(int(str(request.seed))),
            **more,
        )
        orders.send(time.perf_counter() - started)


def measure_solo(model: Path, size: int, rounds: int) -> dict[str, object]:
    """Time one image alone in the engine and in Diffusers, in turn; the first round warms up."""
    from lpw_sdxl.engine import Engine  # noqa: PLC0415 - see `mask_file`
    from lpw_sdxl.settings import Settings  # noqa: PLC0415

    context = multiprocessing.get_context("spawn")
    orders, theirs = context.Pipe()
    process = context.Process(target=time_diffusers, args=(model, size, theirs), daemon=True)
    process.start()
    engine = Engine.load(model, Settings())

    def ask_diffusers(kind: str) -> float:
        orders.send(kind)
        return float(orders.recv())

    def ask_engine(kind: str) -> float:
        request = solo_request(kind, size)
        started = time.perf_counter()
        asyncio.run(engine.generate(request))
        return time.perf_counter() - started

    seconds: dict[str, dict[str, list[float]]] = {
        kind: {"engine": [], "Diffusers": []} for kind in (FROM_PICTURE, WITH_MASK)
    }
    for number, kind in itertools.product(range(rounds + 1), seconds):
        both = {"engine": ask_engine(kind), "Diffusers": ask_diffusers(kind)}
        for name, value in both.items():
            seconds[kind][name] += [value] if number else []
    orders.send("")
    process.join()
    engine.close()
    return {
        kind: {name: rounded(values) for name, values in ways.items()}
        | {"engine / Diffusers": paired(ways["engine"], ways["Diffusers"])}
        for kind, ways in seconds.items()
    }


def measure_stream(plan: Plan, client: OwnProcess) -> tuple[str, dict[str, Any]]:
    """Measure throughput in rounds, then latency in rounds; return the device, too."""
    bench = Bench(plan, client, WAYS)
    per_second: dict[str, list[float]] = {name: [] for name in WAYS}
    p95: dict[str, list[float]] = {name: [] for name in WAYS}
    errors: Counter[str] = Counter(dict.fromkeys(WAYS, 0))
    for number, name in itertools.product(range(1, plan.rounds + 1), WAYS):
        value, answers = bench.throughput(name, seed=number)
        per_second[name].append(value)
        errors[name] += sum(answer.status != 200 for answer in answers)
    rate = LOAD * statistics.median(per_second[PLAIN])
    for number, name in itertools.product(range(1, plan.rounds + 1), WAYS):
        answers = bench.latency(name, number, rate)
        p95[name].append(percentiles(answers)[1])
        errors[name] += sum(answer.status != 200 for answer in answers)
    return bench.device, {
        "arrivals_per_second": round(rate, 3),
        "images_per_second": {name: rounded(values) for name, values in per_second.items()},
        "p95_seconds": {name: rounded(values) for name, values in p95.items()},
        "throughput ours / plain": paired(per_second[OURS], per_second[PLAIN]),
        "p95 ours / plain": paired(p95[OURS], p95[PLAIN]),
        "errors": errors,
        "others_share_of_cores": rounded(bench.others),
    }


def are_met(stream: Mapping[str, object], solo: Mapping[str, object]) -> dict[str, bool]:
    def median(ratio: object) -> float:
        assert isinstance(ratio, dict)
        return float(ratio["median"])

    errors = stream["errors"]
    assert isinstance(errors, Counter)
    bars = {
        "throughput": median(stream["throughput ours / plain"]) >= LEAST_THROUGHPUT,
        "p95": median(stream["p95 ours / plain"]) <= MOST_P95,
        "no errors": not errors.total(),
    }
    for kind, ways in solo.items():
        assert isinstance(ways, dict)
        bars[f"alone, {kind}"] = median(ways["engine / Diffusers"]) <= MOST_SOLO
    return bars


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=64, help="of one round of one way")
    parser.add_argument("--size", type=int, default=128, help="pixels, both sides")
    parser.add_argument("--model", type=Path, help="model directory; the demo model by default")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of the service")
    parser.add_argument("--quick", action="store_true", help="a few minutes; no result is kept")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_stream_options(parser)
    parser.add_argument("--solo", type=int, default=7, help="rounds of one image alone")
    options = parser.parse_args()
    rounds, images = (1, 16) if options.quick else (options.rounds, options.images)
    with model_to_serve(options.model) as model, own_process() as client:
        others = OtherWork()
        solo = measure_solo(model, options.size, options.solo)
        solo_others = others.share()
        print(solo, flush=True)
        plan = Plan(model, images, options.size, options.threads, Stream.PICTURES, rounds)
        device, stream = measure_stream(plan, client)
    result = service_surroundings(device, options.threads) | {
        "size": f"{options.size}x{options.size}",
        "images_per_round": images,
        "rounds": rounds,
        "alone": solo,
        "alone_others_share_of_cores": solo_others,
        "stream": stream,
        "bars_met": are_met(stream, solo),
    }
    write_result("picture_stream", result, keep=not options.quick)


if __name__ == "__main__":
    main()
