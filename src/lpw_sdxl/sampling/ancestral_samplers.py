"""Samplers that add new noise after each step: Euler a, DPM2 a and DPM++ 2S a.

They step below the next sigma, and noise brings them up to it again; `eta` is the share of the
noise, 0 for none. Their forms are those of k-diffusion's `sampling.py` (0.1.1, MIT licence).
"""

from __future__ import annotations

from itertools import pairwise

import torch

from lpw_sdxl.sampling.ode_samplers import derivative, dpm2_step
from lpw_sdxl.sampling.walk import Evaluation, Noise, Walk


def euler_ancestral(latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise, eta: float) -> Walk:
    """Step as Euler, then add noise."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Evaluation(latents, sigma)
        down, up = ancestral_step(sigma, sigma_next, eta)
        latents = latents + derivative(latents, denoised, sigma) * (down - sigma)
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents


def dpm2_ancestral(latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise, eta: float) -> Walk:
    """Step as DPM2, then add noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = ancestral_step(sigma, sigma_next, eta)
        latents = yield from dpm2_step(latents, sigma, down)
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents


def dpmpp_2s_ancestral(
    latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise, eta: float
) -> Walk:
    """Step by DPM-Solver++(2S) (Lu et al., arXiv 2211.01095, algorithm 1), then add noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = ancestral_step(sigma, sigma_next, eta)
        denoised = yield Evaluation(latents, sigma)
        if down == 0:
            latents = latents + derivative(latents, denoised, sigma) * (down - sigma)
        else:
            time, time_next = -sigma.log(), -down.log()
            length = time_next - time
            middle = (-(time + length / 2)).exp()
            halfway = middle / sigma * latents - (-length / 2).expm1() * denoised
            denoised = yield Evaluation(halfway, middle)
            latents = down / sigma * latents - (-length).expm1() * denoised
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents


def ancestral_step(
    sigma: torch.Tensor, sigma_next: torch.Tensor, eta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split a step into how far down it goes, and the noise that brings it up again.

    The variances of both add up to that of the next sigma (Song et al., arXiv 2010.02502,
    equation 16, for noise of exploding variance).
    """
    if eta == 0:
        return sigma_next, torch.zeros_like(sigma_next)
    up = eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2).sqrt()
    up = torch.minimum(sigma_next, up)
    return (sigma_next**2 - up**2).sqrt(), up
