"""K-diffusion's samplers as plain loops, from their papers: a reference that shares no code with
ours.

`denoised(x, sigma)` is the model: from latents with noise of a sigma, a float32 scalar, to its
estimate of the latents without noise. `noise(sigma, sigma_next)` draws. Sigmas are descending,
float32, `[steps + 1]`. Samplers with another signature are in `plain_timestep_samplers`.

Papers: Karras et al., arXiv 2206.00364 (Euler, Heun); Lu et al., 2206.00927 (DPM-Solver) and
2211.01095 (DPM-Solver++); Xu et al., 2306.14878 (Restart).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import torch
import torchsde
from numpy.polynomial import Polynomial
from torchsde._brownian import brownian_interval

from plain_schedules import karras_between

Tensor = torch.Tensor
Denoised = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor, Tensor], Tensor]


def euler(denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    for sigma, after in _steps(sigmas):
        x = x + (x - denoised(x, sigma)) / sigma * (after - sigma)
    return x


def heun(denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    for sigma, after in _steps(sigmas):
        slope = (x - denoised(x, sigma)) / sigma
        if after > 0:
            there = x + slope * (after - sigma)
            slope = (slope + (there - denoised(there, after)) / after) / 2
        x = x + slope * (after - sigma)
    return x


def dpm2(denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    return dpm2_ancestral(denoised, x, sigmas, noise, eta=0.0)


def lms(denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Linear multistep of order 4: the slopes' polynomial is integrated over the step."""
    slopes: list[Tensor] = []
    for index, (sigma, after) in enumerate(_steps(sigmas)):
        slopes = [(x - denoised(x, sigma)) / sigma, *slopes[:3]]
        nodes = [sigmas[index - back].item() for back in range(len(slopes))]
        for slope, node in zip(slopes, nodes, strict=True):
            others = [other for other in nodes if other != node]
            basis = Polynomial.fromroots(others) if others else Polynomial([1.0])
            integral = (basis / basis(node)).integ()
            x = x + slope * float(integral(after.item()) - integral(sigma.item()))
    return x


def euler_ancestral(
    denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0
) -> Tensor:
    for sigma, after in _steps(sigmas):
        down, up = _ancestral(sigma, after, eta)
        x = x + (x - denoised(x, sigma)) / sigma * (down - sigma)
        if after > 0 and eta:
            x = x + noise(sigma, after) * up
    return x


def dpm2_ancestral(
    denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0
) -> Tensor:
    for sigma, after in _steps(sigmas):
        down, up = _ancestral(sigma, after, eta)
        slope = (x - denoised(x, sigma)) / sigma
        if down > 0:
            middle = (sigma * down).sqrt()
            there = x + slope * (middle - sigma)
            slope = (there - denoised(there, middle)) / middle
        x = x + slope * (down - sigma)
        if after > 0 and eta:
            x = x + noise(sigma, after) * up
    return x


def dpmpp_2s_ancestral(
    denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0
) -> Tensor:
    for sigma, after in _steps(sigmas):
        down, up = _ancestral(sigma, after, eta)
        estimate = denoised(x, sigma)
        if down > 0:
            middle = (sigma * down).sqrt()
            estimate = denoised(_towards(x, estimate, sigma, middle), middle)
        x = _towards(x, estimate, sigma, down)
        if after > 0 and eta:
            x = x + noise(sigma, after) * up
    return x


def dpmpp_2m(denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    before = last = None
    for sigma, after in _steps(sigmas):
        estimate = wanted = denoised(x, sigma)
        if before is not None and last is not None and after > 0:
            ratio = (before.log() - sigma.log()) / (sigma.log() - after.log())
            wanted = estimate + (estimate - last) / (2 * ratio)
        x = _towards(x, wanted, sigma, after)
        before, last = sigma, estimate
    return x


def dpmpp_sde(
    denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0
) -> Tensor:
    """DPM-Solver++ of order 2 with noise in both of a step's calls; the midpoint decides alone.

    Sigmas go to their logarithms and back, since a Brownian path depends on their last bits.
    """
    for exact, exact_after in _steps(sigmas):
        sigma, after = exact.log().exp(), exact_after.log().exp()
        estimate = denoised(x, exact)
        if after > 0:
            middle = (-(-sigma.log() + (sigma.log() - after.log()) / 2)).exp()
            down, up = _ancestral(sigma, middle, eta)
            there = _towards(x, estimate, sigma, down)
            if eta:
                there = there + noise(sigma, middle) * up
            estimate = denoised(there, middle)
        down, up = _ancestral(sigma, after, eta)
        x = _towards(x, estimate, sigma, down)
        if after > 0 and eta:
            x = x + noise(sigma, after) * up
    return x


def dpmpp_2m_sde(
    denoised: Denoised,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    eta: float = 1.0,
    *,
    is_heun: bool = False,
) -> Tensor:
    width = last = None
    for sigma, after in _steps(sigmas):
        estimate = denoised(x, sigma)
        if after == 0:
            return estimate
        before, width = width, sigma.log() - after.log()
        decay = width * (1 + eta)
        share = -torch.expm1(-decay)
        x = after / sigma * (-eta * width).exp() * x + share * estimate
        if before is not None and last is not None:
            weight = 1 - share / decay if is_heun else share / 2
            x = x + weight * (estimate - last) * (width / before)
        if eta:
            x = x + noise(sigma, after) * after * (-torch.expm1(-2 * eta * width)).sqrt()
        last = estimate
    return x


def dpmpp_2m_sde_heun(
    denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0
) -> Tensor:
    return dpmpp_2m_sde(denoised, x, sigmas, noise, eta, is_heun=True)


def dpmpp_3m_sde(
    denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0
) -> Tensor:
    estimates: list[Tensor] = []
    widths: list[Tensor] = []
    for sigma, after in _steps(sigmas):
        estimates = [denoised(x, sigma), *estimates[:2]]
        if after == 0:
            return estimates[0]
        widths = [sigma.log() - after.log(), *widths[:2]]
        decay = widths[0] * (1 + eta)
        x = (-decay).exp() * x - torch.expm1(-decay) * estimates[0]
        second = torch.expm1(-decay) / decay + 1
        third = second / decay - 0.5
        rises = [
            (estimates[k] - estimates[k + 1]) * widths[0] / widths[k + 1]
            for k in range(len(estimates) - 1)
        ]
        if len(rises) == 1:
            x = x + second * rises[0]
        elif rises:
            near, far = widths[1] / widths[0], widths[2] / widths[0]
            bend = (rises[0] - rises[1]) / (near + far)
            x = x + second * (rises[0] + bend * near) - third * bend
        if eta:
            x = x + noise(sigma, after) * after * (-torch.expm1(-2 * eta * widths[0])).sqrt()
    return x


def restart(denoised: Denoised, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Heun, which from 20 steps on goes back from sigma 0.1 to 2, once or twice."""
    steps = len(sigmas) - 1
    if steps < 20:
        return heun(denoised, x, sigmas, noise)
    times, back = (2, steps // 4) if steps >= 36 else (1, 9)
    walk = karras_between(steps - times * back, sigmas[-2].item(), sigmas[0].item())
    low, high = (int((walk - level).abs().argmin()) for level in (0.1, 2.0))
    x = heun(denoised, x, walk[: low + 1], noise)
    if high < low:
        again = karras_between(back + 1, walk[low].item(), walk[high].item())[:-1]
        for _ in range(times):
            x = x + noise(walk[low], again[0]) * (again[0] ** 2 - walk[low] ** 2).sqrt()
            x = heun(denoised, x, again, noise)
    return heun(denoised, x, walk[low:], noise)


def brownian(
    x: Tensor, sigmas: Tensor, seed: int, randn: Callable[[int], Tensor] | None = None
) -> Noise:
    """Increments of a Brownian path over a schedule's sigmas, scaled to unit variance.

    `randn` draws like `x` from a seed, where torchsde is not to draw with torch's generator.
    """
    positive = sigmas[sigmas > 0]

    def with_numbers(call: Callable[[], Any]) -> Any:
        with warnings.catch_warnings(), ExitStack() as stack:
            # Its ends are rounded to five digits, and a time beyond them is taken for the end.
            warnings.filterwarnings("ignore", "Should have t[ab]")
            if randn is not None:
                stack.enter_context(
                    patch.object(brownian_interval, "_randn", lambda *rest: randn(int(rest[-1])))
                )
            return call()

    path = with_numbers(
        lambda: torchsde.BrownianTree(
            positive.min(), torch.zeros_like(x), positive.max(), entropy=seed
        )
    )
    return lambda sigma, after: -with_numbers(lambda: path(after, sigma)) / (sigma - after).sqrt()


SAMPLERS: Mapping[str, Callable[..., Tensor]] = {
    "Euler": euler,
    "Heun": heun,
    "DPM2": dpm2,
    "LMS": lms,
    "Euler a": euler_ancestral,
    "DPM2 a": dpm2_ancestral,
    "DPM++ 2S a": dpmpp_2s_ancestral,
    "DPM++ 2M": dpmpp_2m,
    "DPM++ SDE": dpmpp_sde,
    "DPM++ 2M SDE": dpmpp_2m_sde,
    "DPM++ 2M SDE Heun": dpmpp_2m_sde_heun,
    "DPM++ 3M SDE": dpmpp_3m_sde,
    "Restart": restart,
}
BROWNIAN = {name for name in SAMPLERS if "SDE" in name}
SECOND_ORDER = {"Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ SDE", "Restart"}


def _steps(sigmas: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return pairwise(sigmas)


def _ancestral(sigma: Tensor, after: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Split a step into the sigma that it goes down to and the noise that brings it back up."""
    # In this order, as others too: from zero terminal SNR's first sigma down, hardly a bit is left.
    up = torch.minimum(after, eta * (after**2 * (sigma**2 - after**2) / sigma**2).sqrt())
    return (after**2 - up**2).sqrt(), up


def _towards(x: Tensor, estimate: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
    """Move latents to another sigma, with the estimate held."""
    return after / sigma * x + (1 - after / sigma) * estimate
