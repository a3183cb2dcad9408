"""Samplers that go by timesteps, on latents whose variance stays the same: DDIM and PLMS.

Their latents are sqrt(alpha) * picture + sqrt(1 - alpha) * noise; the model evaluates them divided
by sqrt(alpha), where their sigma is sqrt((1 - alpha) / alpha). As in A1111 they stop at the first
timestep, with its noise still in the latents: that is their result.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from typing import NamedTuple

import torch

from lpw_sdxl.sampling.model_sigmas import TRAINED_TIMESTEPS
from lpw_sdxl.sampling.walk import Evaluation, Noise, Walk

_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the last predictions, latest first, by how many came before."""


class TimestepSchedule(NamedTuple):
    """Where a sampler of this kind goes.

    Attributes:
        timesteps: descending, float32 on the CPU, `[n + 1]`; at the last one it stops.
        alphas: the signal's share of the variance at each, like them.
    """

    timesteps: torch.Tensor
    alphas: torch.Tensor


def make_timesteps(steps: int) -> torch.Tensor:
    """Space timesteps evenly, as LDM and A1111 do: there are often more than steps.

    Returns:
        Descending, float32, `[n]`.
    """
    stride = max(TRAINED_TIMESTEPS // steps, 1)
    ascending = torch.arange(0, TRAINED_TIMESTEPS, stride) + 1
    return ascending.clamp(max=TRAINED_TIMESTEPS - 1).flip(0).float()


class Prediction(NamedTuple):
    """The two parts that a model finds in latents under noise."""

    denoised: torch.Tensor
    noise: torch.Tensor


def ddim(latents: torch.Tensor, schedule: TimestepSchedule, noise: Noise, eta: float) -> Walk:
    """Step to the prediction noised for the next timestep (Song et al., 2010.02502, eq. 12).

    Between the steps the latents are those of the model, divided by sqrt(alpha): the predicted
    noise is then a share of their distance from the prediction.
    """
    scaled = latents / schedule.alphas[0].sqrt()
    for (timestep, _), (alpha, alpha_next) in _steps(schedule):
        denoised = yield Evaluation(scaled, _sigma(alpha), timestep)
        spread = eta * ((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)).sqrt()
        direction = ((1 - alpha_next - spread**2) / alpha_next).sqrt()
        scaled = torch.lerp(denoised, scaled, (direction / _sigma(alpha)).item())
        if eta > 0:
            scaled = scaled + spread / alpha_next.sqrt() * noise(_sigma(alpha), _sigma(alpha_next))
    return scaled * schedule.alphas[-1].sqrt()


def plms(latents: torch.Tensor, schedule: TimestepSchedule) -> Walk:
    """Step as DDIM along a polynomial of the last predictions (Liu et al., arXiv 2202.09778).

    The first step takes the mean of the predictions at both of its ends.
    """
    past: list[torch.Tensor] = []
    for (timestep, timestep_next), (alpha, alpha_next) in _steps(schedule):
        prediction = (yield from evaluate(latents, timestep, alpha)).noise
        if past:
            terms = zip(_ADAMS_BASHFORTH[len(past)], [prediction, *past], strict=True)
            combined = sum((weight * term for weight, term in terms), torch.zeros(()))
        else:
            ahead = _transfer(latents, prediction, alpha, alpha_next)
            there = yield from evaluate(ahead, timestep_next, alpha_next)
            combined = (prediction + there.noise) / 2
        latents = _transfer(latents, combined, alpha, alpha_next)
        past = [prediction, *past][:3]
    return latents


def evaluate(
    latents: torch.Tensor, timestep: torch.Tensor, alpha: torch.Tensor
) -> Generator[Evaluation, torch.Tensor, Prediction]:
    """Pause for the model's prediction on latents of constant variance."""
    scaled, sigma = latents / alpha.sqrt(), _sigma(alpha)
    denoised = yield Evaluation(scaled, sigma, timestep)
    return Prediction(denoised, (scaled - denoised) / sigma)


def _transfer(
    latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, alpha_next: torch.Tensor
) -> torch.Tensor:
    """Move latents to another timestep along a prediction of their noise."""
    denoised = (latents - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    return alpha_next.sqrt() * denoised + (1 - alpha_next).sqrt() * noise


def _sigma(alpha: torch.Tensor) -> torch.Tensor:
    return ((1 - alpha) / alpha).sqrt()


_Pair = tuple[torch.Tensor, torch.Tensor]


def _steps(schedule: TimestepSchedule) -> zip[tuple[_Pair, _Pair]]:
    """Pair the timesteps and the alphas of each step's two ends."""
    return zip(pairwise(schedule.timesteps), pairwise(schedule.alphas), strict=True)
