"""The reference of plain loops against Forge's vectors, so that it can be held against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import plain_samplers
import plain_schedules
import plain_timestep_samplers
from lpw_sdxl import sampling
from sampling_vectors import SHAPE, Toy, largest_error, read_cases, read_tensors

TOLERANCE = 5e-6  # of the largest value
NOISE = read_cases("noise")
ALPHAS = plain_schedules.trained_alphas()
TRAINED = plain_schedules.trained_sigmas(ALPHAS)
CASES = [
    case
    for case in read_cases("sampling")["cases"]
    if case["schedule_type"] in (*plain_schedules.SCHEDULES, "Automatic")
]
LARGEST_STEPS = 64


def name_of(case: dict[str, Any]) -> str:
    return " ".join(str(value) for key, value in case.items() if key != "timesteps")


def draws_of(seed: int, delta: int = 0) -> Iterator[torch.Tensor]:
    first, *others = sampling.noise("nv", seed, SHAPE, LARGEST_STEPS)
    yield first
    yield from sampling.noise("nv", seed + delta, SHAPE, LARGEST_STEPS) if delta else others


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_samplers_of_sigmas_are_those_of_forge(case: dict[str, Any]) -> None:
    toy = Toy()
    latents = sample(toy, case, draws_of(case["seed"]))
    assert toy.calls == case["model_calls"]
    assert largest_error(latents, read_tensors("sampling")[f"{case['index']}.latents"]) < TOLERANCE


@pytest.mark.parametrize("case", NOISE["ancestral"], ids=name_of)
def test_ancestral_noise_is_forges(case: dict[str, Any]) -> None:
    latents = sample(Toy(), case, draws_of(case["seed"], case["ensd"]), eta=case["eta"])
    assert largest_error(latents, read_tensors("noise")[f"ancestral.{case['index']}"]) < TOLERANCE


def sample(toy: Toy, case: dict[str, Any], draws: Iterator[torch.Tensor], **eta: float) -> Any:
    sampler, schedule = case["sampler"], case.get("schedule_type", "Automatic")
    sigmas = plain_schedules.make_sigmas(sampler, schedule, case["steps"], TRAINED)
    x = next(draws) * sigmas[0]

    def draw(*_: torch.Tensor) -> torch.Tensor:
        return next(draws)

    noise: Any = draw
    if sampler in plain_samplers.BROWNIAN:
        noise = plain_samplers.brownian(
            x, sigmas, case["seed"], lambda seed: sampling.noise("nv", seed, SHAPE, 1)[0]
        )
    return plain_samplers.SAMPLERS[sampler](toy, x, sigmas, noise, **eta)


@pytest.mark.parametrize("case", read_cases("timesteps"), ids=name_of)
def test_samplers_of_timesteps_and_restarts_are_those_of_forge(case: dict[str, Any]) -> None:
    toy, draws = Toy(), draws_of(case["seed"])
    expected = read_tensors("timesteps")[f"{case['index']}.latents"]
    if case["sampler"] == "Restart":
        assert largest_error(sample(toy, case, draws), expected) < TOLERANCE
        assert toy.calls == case["model_calls"]
        return
    called: list[float] = []

    def predicted_noise(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        called.append(timestep.item())
        sigma = plain_schedules.sigma_at(timestep, TRAINED)
        latents = x * (1 + sigma**2).sqrt()
        return (latents - toy(latents, sigma)) / sigma

    timesteps: Any = plain_schedules.timesteps_of_ddim(case["steps"])
    more = {}
    if case["sampler"] == "UniPC":
        timesteps = plain_schedules.times_of_unipc(len(timesteps))
    elif case["sampler"] == "DDIM":
        more = {"eta": case["eta"]}
    latents = plain_timestep_samplers.SAMPLERS[case["sampler"]](
        predicted_noise, next(draws), timesteps, ALPHAS.float(), lambda *_: next(draws), **more
    )
    assert called == pytest.approx(case["timesteps"])
    assert largest_error(latents, expected) < TOLERANCE


@pytest.mark.parametrize("case", NOISE["variations"], ids=name_of)
def test_variations_are_forges(case: dict[str, Any]) -> None:
    seeds = case["seed"], case["variation_seed"]
    made = plain_schedules.turn(*map(next, map(draws_of, seeds)), case["variation_strength"])
    assert largest_error(made, read_tensors("noise")[f"variation.{case['index']}"]) < TOLERANCE


@pytest.mark.parametrize("schedule", plain_schedules.SCHEDULES)
@pytest.mark.parametrize("steps", [1, 4, 9, 12, 20])
def test_schedules_are_those_of_forge(schedule: str, steps: int) -> None:
    expected = torch.tensor(read_cases("sampling")["sigmas"][f"{schedule}|{steps}"])
    made = plain_schedules.SCHEDULES[schedule](steps, TRAINED)
    torch.testing.assert_close(made, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize(("name", "expected"), NOISE["zero_snr_sigmas"].items())
def test_schedules_with_zero_terminal_snr_are_those_of_forge(
    name: str, expected: list[float]
) -> None:
    schedule, steps = name.split("|")
    trained = plain_schedules.trained_sigmas(plain_schedules.trained_alphas(zero_snr=True))
    made = plain_schedules.SCHEDULES[schedule](int(steps), trained)
    torch.testing.assert_close(made, torch.tensor(expected), rtol=2e-6, atol=0)
