"""How near are k-diffusion's samplers to Forge's, and what do they cost the engine's thread?

Three parts. Each sampler makes the latents of tests/golden, and the largest difference is noted, as
a share of the largest value. The time of its steps, without the UNet's, is compared with that of
Diffusers' scheduler of the same name, both in turn: for an image of the size asked for, and for one
of 64 pixels, whose time is that of Python and of starting operations, as on a GPU. And eight images
are stepped with noise that other threads draw, while a pause stands for a GPU's UNet call: their
time in the engine's thread with `nv` is compared with that with `cpu`.

Bars: 2e-4 of the largest value; steps no dearer than Diffusers'; noise no dearer than with `cpu`.

    python benchmarks/samplers.py [--rounds 15] [--size 1024] [--pause-ms 250] [--part PART ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from common import surroundings, write_result

from lpw_sdxl.diffusion.diffusers_solver import DiffusersPlan
from lpw_sdxl.diffusion.k_diffusion_solver import KDiffusionPlan, NoiseChoice
from lpw_sdxl.diffusion.solver import Solver, SolverPlan
from lpw_sdxl.diffusion.start import NoiseStart
from lpw_sdxl.engine.noise_drawers import NoiseDrawers
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling import sample
from lpw_sdxl.sampling.course import make_course
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.rehearsal import rehearse
from lpw_sdxl.sampling_options import NoiseSource, SigmaScheduleType
from lpw_sdxl.scheduler_table import SchedulerName
from lpw_sdxl.schema import ImageSize
from tests.sampling_vectors import SHAPE, Toy, largest_error, read_cases, read_tensors

CPU = torch.device("cpu")
STEPS = 20
AT_ONCE = 8
SDXL = ModelSigmas.of_sdxl()
CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
PAIRS: Mapping[SamplerName, SchedulerName] = {
    SamplerName.EULER: SchedulerName.EULER,
    SamplerName.HEUN: SchedulerName.HEUN,
    SamplerName.LMS: SchedulerName.LMS,
    SamplerName.DPMPP_2M: SchedulerName.DPMPP_2M_KARRAS,
    SamplerName.DDIM: SchedulerName.DDIM,
    SamplerName.UNIPC: SchedulerName.UNIPC,
}
"""Deterministic samplers, and Diffusers' schedulers of the same name."""


def compare_vectors() -> dict[str, float]:
    """Compute each sampler's largest difference from the vectors, of their largest value."""
    errors: dict[str, list[float]] = defaultdict(list)
    for name in ("sampling", "timesteps"):
        tensors, cases = read_tensors(name), read_cases(name)
        for index, case in enumerate(cases["cases"] if isinstance(cases, dict) else cases):
            latents = sample(
                Toy(),
                sampler=case["sampler"],
                schedule_type=case.get("schedule_type") or case.get("schedule") or "Automatic",
                steps=case["steps"],
                seed=case["seed"],
                noise_source="nv",
                shape=SHAPE,
                eta=case.get("eta"),
            )
            errors[case["sampler"]].append(largest_error(latents, tensors[f"{index}.latents"]))
    return {name: max(values) for name, values in sorted(errors.items())}


def plan_of(
    sampler: SamplerName, size: ImageSize, seed: int, source: NoiseSource = NoiseSource.CPU
) -> KDiffusionPlan:
    course = make_course(sampler, SigmaScheduleType.AUTOMATIC, STEPS, SDXL)
    rehearsal = rehearse(course)
    timesteps = rehearsal.timesteps(SDXL)
    noise = NoiseChoice(source, seed)
    return KDiffusionPlan(course, rehearsal, timesteps, "epsilon", noise, size)


def seconds_a_call(plan: SolverPlan, prediction: torch.Tensor) -> float:
    """Run an image without a UNet; return the seconds of a call, its beginning included."""
    started = time.perf_counter()
    solver = plan.begin(NoiseStart(), CPU)
    for _ in range(plan.calls):
        solver.model_input()
        solver.advance(prediction)
    return (time.perf_counter() - started) / plan.calls


@torch.inference_mode()
def compare_steps(size: ImageSize, rounds: int) -> dict[str, dict[str, float]]:
    """Time each pair's steps in turn."""
    prediction = torch.randn(1, 4, size.height // 8, size.width // 8)
    results = {}
    for sampler, scheduler in PAIRS.items():
        plans: dict[str, SolverPlan] = {
            "k_diffusion": plan_of(sampler, size, 1),
            "diffusers": DiffusersPlan(scheduler, CONFIG, STEPS, size, 1),
        }
        times = alternate(
            {way: partial(seconds_a_call, plan, prediction) for way, plan in plans.items()}, rounds
        )
        results[str(sampler)] = summarize(times, "k_diffusion", "diffusers")
    return results


def step_together(solvers: Sequence[Solver], prediction: torch.Tensor, pause_s: float) -> float:
    """Step images together; return the seconds of a call that are not the UNet's."""
    busy = 0.0
    calls = STEPS
    for _ in range(calls):
        time.sleep(pause_s)
        started = time.perf_counter()
        for solver in solvers:
            solver.model_input()
            solver.advance(prediction)
        busy += time.perf_counter() - started
    return busy / calls


@torch.inference_mode()
def compare_noise(size: ImageSize, rounds: int, pause_s: float) -> dict[str, Any]:
    """Time eight images of each noise source in turn, with their noise drawn ahead."""
    prediction = torch.randn(1, 4, size.height // 8, size.width // 8)

    def run(sampler: SamplerName, source: NoiseSource) -> float:
        drawers = NoiseDrawers()
        plans = [plan_of(sampler, size, seed, source) for seed in range(AT_ONCE)]
        noises = [plan.open_noise(CPU, drawers.ask) for plan in plans]
        for noise in noises:
            drawers.ask(noise)
        time.sleep(pause_s)  # as long as the images wait for the call under way
        solvers = [
            plan.begin(NoiseStart(), CPU, noise) for plan, noise in zip(plans, noises, strict=True)
        ]
        busy = step_together(solvers, prediction, pause_s)
        drawers.close()
        return busy

    results = {}
    for sampler in (SamplerName.EULER_ANCESTRAL, SamplerName.DPMPP_2M_SDE):
        times = alternate(
            {str(source): partial(run, sampler, source) for source in NoiseSource}, rounds
        )
        results[str(sampler)] = summarize(times, "nv", "cpu")
    return results


def alternate(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run all ways in turn, once without counting it and then so many rounds."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            seconds = run()
            if number:
                times[way].append(seconds)
    return times


def summarize(times: Mapping[str, Sequence[float]], one: str, other: str) -> dict[str, float]:
    """Return the medians in milliseconds, and the median of each round's ratio."""
    medians = {f"{way}_ms": 1000 * statistics.median(each) for way, each in times.items()}
    ratios = [a / b for a, b in zip(times[one], times[other], strict=True)]
    return medians | {"ratio": statistics.median(ratios)}


PARTS = ("vectors", "steps", "noise")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, default=1024, help="pixels of a side")
    parser.add_argument("--pause-ms", type=float, default=250, help="instead of a UNet call")
    parser.add_argument("--part", action="append", choices=PARTS, help="a part alone")
    options = parser.parse_args()
    torch.set_num_threads(1)  # what the engine's thread does beside its calls is not shared out
    parts, size = options.part or PARTS, ImageSize(options.size, options.size)
    result: dict[str, Any] = {"surroundings": surroundings(CPU), "size": options.size}
    if "vectors" in parts:
        result["largest_difference"] = compare_vectors()
    if "steps" in parts:
        result["steps"] = compare_steps(size, options.rounds)
        result["steps_of_64_pixels"] = compare_steps(ImageSize(64, 64), options.rounds)
    if "noise" in parts:
        rounds = max(1, options.rounds // 5)
        result["noise"] = compare_noise(size, rounds, options.pause_ms / 1000)
    write_result("samplers", result, keep=options.part is None)


if __name__ == "__main__":
    main()
