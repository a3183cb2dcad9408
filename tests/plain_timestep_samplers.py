"""A1111's samplers that walk between timesteps, as plain loops from their papers.

Latents keep their variance. `predicted_noise(x, timestep)` is the model, and `alphas` the signal's
share of the variance at each of the 1000 timesteps, float32.

Papers: Song et al., arXiv 2010.02502 (DDIM); Liu et al., 2202.09778 (PLMS); Zhao et al., 2302.04867
(UniPC).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

Tensor = torch.Tensor
PredictedNoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor, Tensor], Tensor]


def ddim(
    predicted_noise: PredictedNoise,
    x: Tensor,
    timesteps: Sequence[int],
    alphas: Tensor,
    noise: Noise,
    eta: float = 0.0,
) -> Tensor:
    for time, after in _down(timesteps):
        here, there = alphas[time], alphas[after]
        deviation = eta * ((1 - there) / (1 - here) * (1 - here / there)).sqrt()
        found = predicted_noise(x, torch.tensor(float(time)))
        picture = (x - (1 - here).sqrt() * found) / here.sqrt()
        x = there.sqrt() * picture + (1 - there - deviation**2).sqrt() * found
        if eta:
            x = x + deviation * noise(here, there)
    return x


ADAMS_BASHFORTH = {1: (3, -1), 2: (23, -16, 5), 3: (55, -59, 37, -9)}


def plms(
    predicted_noise: PredictedNoise,
    x: Tensor,
    timesteps: Sequence[int],
    alphas: Tensor,
    noise: Noise,
) -> Tensor:
    def move(x: Tensor, found: Tensor, time: int, after: int) -> Tensor:
        here, there = alphas[time], alphas[after]
        picture = (x - (1 - here).sqrt() * found) / here.sqrt()
        return there.sqrt() * picture + (1 - there).sqrt() * found

    known: list[Tensor] = []
    for time, after in _down(timesteps):
        found = predicted_noise(x, torch.tensor(float(time)))
        if known:
            weights = ADAMS_BASHFORTH[len(known)]
            total = sum(w * e for w, e in zip(weights, [found, *known], strict=True))
            mean = total / sum(weights)
        else:
            there = move(x, found, time, after)
            mean = (found + predicted_noise(there, torch.tensor(float(after)))) / 2
        known = [found, *known[:2]]
        x = move(x, mean, time, after)
    return x


def unipc(
    predicted_noise: PredictedNoise, x: Tensor, times: Tensor, alphas: Tensor, noise: Noise
) -> Tensor:
    """Multistep UniPC of order 3 with B(h) = h on estimates of the picture.

    Args:
        predicted_noise: the model.
        x: latents at the first time.
        times: float32, `[steps + 1]`, which may have fractions.
        alphas: between whole timesteps their logarithms are interpolated.
        noise: none is drawn.
    """
    signal = alpha_at(times, alphas).sqrt().numpy()
    spread = np.sqrt(1 - signal**2)
    ratio = np.log(signal / spread)
    steps = len(times) - 1

    def picture(x: Tensor, at: int) -> Tensor:
        return (x - spread[at] * predicted_noise(x, times[at])) / signal[at]

    pictures = [picture(x, 0)]
    for at in range(1, steps + 1):
        order = min(3, at, steps + 1 - at)
        width = ratio[at] - ratio[at - 1]
        places = [(ratio[at - 1 - k] - ratio[at - 1]) / width for k in range(1, order)]
        rises = [(pictures[k] - pictures[0]) / places[k - 1] for k in range(1, order)]
        plain = spread[at] / spread[at - 1] * x - signal[at] * math.expm1(-width) * pictures[0]
        weights = [0.5] if order == 2 else _unipc_weights(places, width)
        bend = sum((w * rise for w, rise in zip(weights, rises, strict=True)), 0.0 * x)
        predicted = plain + signal[at] * width * bend
        if at == steps:
            return predicted
        found = picture(predicted, at)
        weights = [0.5] if order == 1 else _unipc_weights([*places, 1.0], width)
        rises.append(found - pictures[0])
        bend = sum((w * rise for w, rise in zip(weights, rises, strict=True)), 0.0 * x)
        x = plain + signal[at] * width * bend
        pictures = [found, *pictures[:2]]
    return x


def alpha_at(timestep: Tensor, alphas: Tensor) -> Tensor:
    """Log-linearly between whole timesteps, float64."""
    logarithms = alphas.double().log().numpy()
    return torch.as_tensor(np.interp(timestep.numpy(), np.arange(1000), logarithms)).exp()


SAMPLERS: Mapping[str, Callable[..., Tensor]] = {"DDIM": ddim, "PLMS": plms, "UniPC": unipc}


def _unipc_weights(places: Sequence[float], width: float) -> list[float]:
    """Solve for the weights that make a step exact for polynomials of the places' number."""
    if not places:
        return []
    count = len(places)
    rows = [[place**power for place in places] for power in range(count)]
    phi, wanted = math.expm1(-width) / -width, []
    for power in range(1, count + 1):
        phi = (phi - 1 / math.factorial(power)) / -width
        wanted.append(phi * math.factorial(power))
    return list(np.linalg.solve(np.array(rows), np.array(wanted)))


def _down(timesteps: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Walk ascending timesteps from the top."""
    return zip(timesteps[:0:-1], timesteps[-2::-1], strict=True)
