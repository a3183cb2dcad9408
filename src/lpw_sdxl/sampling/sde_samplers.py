"""Samplers with noise along one Brownian path: DPM++ SDE, 2M SDE, 2M SDE Heun and 3M SDE.

They are the SDE solvers of DPM-Solver++ (Lu et al., arXiv 2211.01095), in the forms of
k-diffusion's `sampling.py` (0.1.1, MIT licence). `eta` is the share of the noise, 0 for none; a
step's length is that of -log(sigma).
"""

from __future__ import annotations

from itertools import pairwise

import torch

from lpw_sdxl.sampling.ancestral_samplers import ancestral_step
from lpw_sdxl.sampling.ode_samplers import derivative
from lpw_sdxl.sampling.walk import Evaluation, Noise, Walk


def dpmpp_sde(latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise, eta: float) -> Walk:
    """Step by way of the middle; noise is added there and at the end."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Evaluation(latents, sigma)
        if sigma_next == 0:
            latents = latents + derivative(latents, denoised, sigma) * (sigma_next - sigma)
            continue
        time, time_next = -sigma.log(), -sigma_next.log()
        middle = (-(time + (time_next - time) * 0.5)).exp()
        # k-diffusion takes each sigma through its logarithm, which shifts the path's sixth decimal.
        here, there = (-time).exp(), (-time_next).exp()
        halfway = _noisy_step(latents, denoised, (here, middle), noise, eta)
        denoised = yield Evaluation(halfway, middle)
        latents = _noisy_step(latents, denoised, (here, there), noise, eta)
    return latents


def _noisy_step(
    latents: torch.Tensor,
    denoised: torch.Tensor,
    step: tuple[torch.Tensor, torch.Tensor],
    noise: Noise,
    eta: float,
) -> torch.Tensor:
    """Step below the end of a step by first order, and add noise up to it."""
    sigma, sigma_next = step
    down, up = ancestral_step(sigma, sigma_next, eta)
    time, time_next = -sigma.log(), -down.log()
    stepped = (-time_next).exp() / sigma * latents - (time - time_next).expm1() * denoised
    return stepped if eta == 0 else stepped + noise(sigma, sigma_next) * up


def dpmpp_2m_sde(
    latents: torch.Tensor,
    sigmas: torch.Tensor,
    noise: Noise,
    eta: float,
    *,
    is_heun: bool = False,
) -> Walk:
    """Step by the last two predictions.

    Args:
        latents: at the first sigma.
        sigmas: descending.
        noise: along the path.
        eta: share of the noise.
        is_heun: whether the second prediction has Heun's weight, and not that of the midpoint.
    """
    previous: tuple[torch.Tensor, torch.Tensor] | None = None  # prediction and length
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Evaluation(latents, sigma)
        if sigma_next == 0:
            return denoised
        length = sigma.log() - sigma_next.log()
        decay = -(length + eta * length)
        share = -decay.expm1()
        latents = sigma_next / sigma * (-eta * length).exp() * latents + share * denoised
        if previous is not None:
            weight = share / decay + 1 if is_heun else 0.5 * share
            latents = latents + weight * (length / previous[1]) * (denoised - previous[0])
        latents = latents + _noise_of_step(sigma, sigma_next, length, noise, eta)
        previous = denoised, length
    return latents


def dpmpp_3m_sde(latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise, eta: float) -> Walk:
    """Step by the last three predictions."""
    previous: list[tuple[torch.Tensor, torch.Tensor]] = []  # prediction and length, latest first
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Evaluation(latents, sigma)
        if sigma_next == 0:
            return denoised
        length = sigma.log() - sigma_next.log()
        decay = length * (eta + 1)
        latents = (-decay).exp() * latents - (-decay).expm1() * denoised
        phi_2 = (-decay).expm1() / decay + 1
        if len(previous) == 1:
            [(denoised_1, length_1)] = previous
            latents = latents + phi_2 * (denoised - denoised_1) / (length_1 / length)
        elif previous:
            (denoised_1, length_1), (denoised_2, length_2) = previous
            ratio_0, ratio_1 = length_1 / length, length_2 / length
            slope_0 = (denoised - denoised_1) / ratio_0
            slope_1 = (denoised_1 - denoised_2) / ratio_1
            bend = (slope_0 - slope_1) / (ratio_0 + ratio_1)
            phi_3 = phi_2 / decay - 0.5
            latents = latents + phi_2 * (slope_0 + bend * ratio_0) - phi_3 * bend
        latents = latents + _noise_of_step(sigma, sigma_next, length, noise, eta)
        previous = [(denoised, length), *previous[:1]]
    return latents


def _noise_of_step(
    sigma: torch.Tensor, sigma_next: torch.Tensor, length: torch.Tensor, noise: Noise, eta: float
) -> torch.Tensor | float:
    """Scale the path's noise to what a step of the SDE adds."""
    if eta == 0:
        return 0.0
    return noise(sigma, sigma_next) * sigma_next * (-(-2 * eta * length).expm1()).sqrt()
