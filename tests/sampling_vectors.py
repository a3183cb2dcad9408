"""Forge's vectors of samplers, schedules and noise, and the toy model that they were made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
SHAPE = (4, 8, 8)


class Toy:
    """A model that needs no UNet, and counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, latents: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        share = sigma**2 / (1 + sigma**2)
        pull = 0.8 * torch.tanh(0.5 * latents) + 0.05 * torch.roll(latents, 1, dims=-1)
        return (1 - share) * latents + share * pull


def read_cases(name: str) -> Any:
    return json.loads((GOLDEN / f"a1111_{name}_public.json").read_text(encoding="utf-8"))


def read_tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"a1111_{name}_public.safetensors")


def largest_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, of the largest expected value."""
    assert result.shape == expected.shape
    return ((result - expected).abs().max() / expected.abs().max()).item()
