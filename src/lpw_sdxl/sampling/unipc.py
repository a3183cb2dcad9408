"""UniPC, a multistep solver whose steps are predicted, then corrected by the next evaluation.

Zhao et al., arXiv 2302.04867: the multistep variant that predicts the latents without noise, with
B(h) = h ("bh1"), third order, and lower orders in the first steps and the last ones. A step's
length is that of lambda = log(sqrt(alpha) / sqrt(1 - alpha)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lpw_sdxl.sampling.model_sigmas import TRAINED_TIMESTEPS
from lpw_sdxl.sampling.timestep_samplers import TimestepSchedule, evaluate
from lpw_sdxl.sampling.walk import Walk

ORDER = 3


def divide_timesteps(timesteps: torch.Tensor, *, starts_late: bool) -> torch.Tensor:
    """Divide the way to timestep 0 evenly, into fractions of timesteps.

    Args:
        timesteps: of A1111's schedule, descending, `[n]`.
        starts_late: whether the way begins at the first of them; it begins at the model's last
            timestep otherwise. Either way there is a step for each.

    Returns:
        Descending, float32, one more than there are steps.
    """
    first = timesteps[0].item() if starts_late else TRAINED_TIMESTEPS - 1
    return torch.linspace(first, 0, len(timesteps) + 1)


def unipc(latents: torch.Tensor, schedule: TimestepSchedule) -> Walk:
    """Predict each step from the last evaluations, and correct it by the one it leads to."""
    timesteps, alphas = schedule
    signal, deviation = alphas.sqrt(), (1 - alphas).sqrt()
    lambdas = (alphas / (1 - alphas)).log() / 2
    steps = len(timesteps) - 1
    if steps == 0:
        return latents
    denoised = [(yield from evaluate(latents, timesteps[0], alphas[0])).denoised]
    for step in range(1, steps + 1):
        order = min(ORDER, step, steps + 1 - step)
        length = lambdas[step] - lambdas[step - 1]
        ratios = ((lambdas[step - order : step - 1] - lambdas[step - 1]) / length).flip(0).tolist()
        slopes = [
            (earlier - denoised[-1]) / ratio
            for earlier, ratio in zip(denoised[-2 : -order - 1 : -1], ratios, strict=True)
        ]
        base = deviation[step] / deviation[step - 1] * latents
        base = base - signal[step] * (-length).expm1() * denoised[-1]
        weights = _predictor_weights(ratios, -length.item())
        latents = base + signal[step] * length * _sum(weights, slopes)
        if step == steps:
            return latents
        there = (yield from evaluate(latents, timesteps[step], alphas[step])).denoised
        weights = _corrector_weights(ratios, -length.item())
        change = _sum(weights, [*slopes, there - denoised[-1]])
        latents = base + signal[step] * length * change
        denoised = [*denoised, there][-ORDER:]
    return latents


def _sum(weights: Sequence[float], slopes: Sequence[torch.Tensor]) -> torch.Tensor | float:
    return sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))


def _predictor_weights(ratios: Sequence[float], length: float) -> list[float]:
    """Weigh the slopes to earlier evaluations; one alone has a half, as in the paper's code."""
    return [0.5] if len(ratios) == 1 else _solve(ratios, length)


def _corrector_weights(ratios: Sequence[float], length: float) -> list[float]:
    """Weigh the slopes to earlier evaluations and to the next one, at ratio 1."""
    return _solve([*ratios, 1.0], length) if ratios else [0.5]


def _solve(ratios: Sequence[float], length: float) -> list[float]:
    """Solve for weights that make the step exact for polynomials (theorem 3.1).

    Args:
        ratios: places of the evaluations, in steps from the latest.
        length: of the step in lambda, negative.
    """
    count = len(ratios)
    if count == 0:
        return []
    places = torch.tensor(ratios, dtype=torch.float64)
    powers = places ** torch.arange(count)[:, None]
    phi, moments = math.expm1(length) / length - 1, []
    for power in range(1, count + 1):
        moments.append(phi * math.factorial(power) / length)
        phi = phi / length - 1 / math.factorial(power + 1)
    weights: list[float] = torch.linalg.solve(
        powers, torch.tensor(moments, dtype=torch.float64)
    ).tolist()
    return weights
