"""Agreement with Forge, from vectors that it produced, and the names that are read."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lpw_sdxl import sampling
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.sampler_table import SAMPLERS, SamplerName, UnservedSampler
from sampling_vectors import SHAPE, Toy, largest_error, read_cases, read_tensors

# Of the largest value. The bar is 2e-4; what is left here is the order in which float32 is added.
TOLERANCE = 5e-6
NOISE = read_cases("noise")


def name_of(case: dict[str, Any]) -> str:
    return " ".join(str(value) for key, value in case.items() if key != "timesteps")


@pytest.mark.parametrize("case", read_cases("sampling")["cases"], ids=name_of)
def test_latents_and_calls_are_those_of_forge(case: dict[str, Any]) -> None:
    toy = Toy()
    latents = sampling.sample(
        toy,
        sampler=case["sampler"],
        schedule_type=case["schedule_type"],
        steps=case["steps"],
        seed=case["seed"],
        noise_source="nv",
        shape=SHAPE,
    )
    assert toy.calls == case["model_calls"]
    expected = read_tensors("sampling")[f"{case['index']}.latents"]
    assert largest_error(latents, expected) < TOLERANCE


@pytest.mark.parametrize("case", read_cases("timesteps"), ids=name_of)
def test_latents_by_timesteps_and_restarts_are_those_of_forge(case: dict[str, Any]) -> None:
    toy = Toy()
    latents = sampling.sample(
        toy,
        sampler=case["sampler"],
        schedule_type="Automatic",
        steps=case["steps"],
        seed=case["seed"],
        noise_source="nv",
        shape=SHAPE,
        eta=case.get("eta"),
    )
    assert toy.calls == case.get("model_calls", len(case.get("timesteps", ())))
    expected = read_tensors("timesteps")[f"{case['index']}.latents"]
    assert largest_error(latents, expected) < TOLERANCE


@pytest.mark.parametrize("case", NOISE["ancestral"], ids=name_of)
def test_ancestral_noise_follows_eta_and_its_seed_delta(case: dict[str, Any]) -> None:
    latents = sampling.sample(
        Toy(),
        sampler=case["sampler"],
        schedule_type=case["schedule_type"],
        steps=case["steps"],
        seed=case["seed"],
        noise_source="nv",
        shape=SHAPE,
        eta=case["eta"],
        eta_noise_seed_delta=case["ensd"],
    )
    expected = read_tensors("noise")[f"ancestral.{case['index']}"]
    assert largest_error(latents, expected) < TOLERANCE


@pytest.mark.parametrize("case", NOISE["variations"], ids=name_of)
def test_variations_are_those_of_forge(case: dict[str, Any]) -> None:
    noise = sampling.variation(
        case["seed"], case["variation_seed"], case["variation_strength"], SHAPE
    )
    expected = read_tensors("noise")[f"variation.{case['index']}"]
    assert largest_error(noise, expected) < TOLERANCE


@pytest.mark.parametrize("sampler", SamplerName)
@pytest.mark.parametrize("steps", [1, 2, 3, 21])
@pytest.mark.parametrize("source", ["cpu", "nv"])
def test_every_sampler_repeats_its_picture(sampler: SamplerName, steps: int, source: str) -> None:
    def picture(seed: int) -> torch.Tensor:
        return sampling.sample(
            Toy(),
            sampler=sampler,
            schedule_type="Automatic",
            steps=steps,
            seed=seed,
            noise_source=source,
            shape=SHAPE,
        )

    first = picture(5)
    assert first.isfinite().all()
    assert first.dtype == torch.float32
    assert torch.equal(first, picture(5))
    assert not torch.equal(first, picture(6))


def test_a_batch_of_one_is_the_same_picture() -> None:
    def picture(shape: tuple[int, ...]) -> torch.Tensor:
        return sampling.sample(
            Toy(),
            sampler="DPM++ SDE",
            schedule_type="Karras",
            steps=6,
            seed=5,
            noise_source="nv",
            shape=shape,
        )

    assert torch.equal(picture((1, *SHAPE))[0], picture(SHAPE))
    wide = sampling.variation(5, 6, 0.3, (1, *SHAPE))
    assert torch.equal(wide[0], sampling.variation(5, 6, 0.3, SHAPE))


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if SAMPLERS[name].eta is not None])
def test_eta_of_zero_draws_no_noise_and_changes_the_picture(sampler: SamplerName) -> None:
    def picture(eta: float, delta: int = 0) -> torch.Tensor:
        return sampling.sample(
            Toy(),
            sampler=sampler,
            schedule_type="Karras",
            steps=6,
            seed=5,
            noise_source="cpu",
            shape=SHAPE,
            eta=eta,
            eta_noise_seed_delta=delta,
        )

    assert torch.equal(picture(0.0), picture(0.0, delta=31337))
    assert not torch.equal(picture(0.0), picture(1.0))


def test_euler_a_without_eta_is_euler() -> None:
    settings = {"schedule_type": "Karras", "steps": 8, "seed": 5, "noise_source": "cpu"}
    ancestral = sampling.sample(Toy(), sampler="Euler a", eta=0.0, shape=SHAPE, **settings)  # type: ignore[arg-type]
    euler = sampling.sample(Toy(), sampler="Euler", shape=SHAPE, **settings)  # type: ignore[arg-type]
    assert torch.equal(ancestral, euler)


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("sampler", "DPM++ 4M", "sampler: not a sampler; did you mean 'DPM"),
        *(("sampler", name, f"'{name}' is a sampler of A") for name in UnservedSampler),
        ("sampler", "k_dpm_ad", "'DPM adaptive' is a sampler of A"),
        ("schedule_type", "Karas", "did you mean 'Karras'"),
        ("noise_source", "gpu", "known are 'cpu', 'nv'"),
        ("steps", 0, "steps is 0; 1 to 1000 would be right"),
        ("steps", 1001, "steps is 1001"),
    ],
)
def test_what_is_not_served_is_refused_by_name(field: str, wrong: object, message: str) -> None:
    settings: dict[str, Any] = {"sampler": "Euler", "schedule_type": "Karras", "steps": 3}
    settings |= {"noise_source": "cpu", field: wrong}
    with pytest.raises(InvalidRequestError, match=r"served|mean|known|right") as refusal:
        sampling.sample(Toy(), seed=1, shape=SHAPE, **settings)
    assert message in refusal.value.message
    assert refusal.value.field == field
