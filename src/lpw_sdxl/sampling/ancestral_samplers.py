"""Samplers that add new noise after each step: Euler a, DPM2 a, DPM++ 2S a, Restart and LCM.

Ancestral ones step below the next sigma, and noise brings them up to it again; `eta` is the share
of the noise, 0 for none. Their forms are k-diffusion's (`sampling.py`, MIT licence, commit
ab527a9).
"""

from __future__ import annotations

from itertools import pairwise

import torch

from lpw_sdxl.sampling.ode_samplers import derivative, dpm2_step, heun_step
from lpw_sdxl.sampling.schedules import karras
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
            continue
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


def lcm(latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise, timesteps: torch.Tensor) -> Walk:
    """Jump to the denoised latents, and noise them again (Luo et al., arXiv 2310.04378, 3).

    The model is a consistency model: at timestep 0 it would give back the latents it sees
    (section 4.1, with sigma_data 0.5 and timesteps counted tenfold).

    Args:
        latents: at the first sigma.
        sigmas: descending, `[n + 1]`.
        noise: of unit variance.
        timesteps: of the evaluations, which the model was distilled on, `[n]`.
    """
    for (sigma, sigma_next), timestep in zip(pairwise(sigmas), timesteps, strict=True):
        denoised = yield Evaluation(latents, sigma, timestep)
        seen, scaled = latents / (sigma**2 + 1).sqrt(), timestep * _LCM_TIMESTEP_SCALE
        spread = scaled**2 + _LCM_SIGMA_DATA**2
        latents = scaled / spread.sqrt() * denoised + _LCM_SIGMA_DATA**2 / spread * seen
        if sigma_next > 0:
            latents = latents + sigma_next * noise(sigma, sigma_next)
    return latents


_LCM_TIMESTEP_SCALE, _LCM_SIGMA_DATA = 10.0, 0.5
RESTART_SIGMA, RESTART_TOP = 0.1, 2.0
"""A restart goes from the sigma nearest to the first up to the one nearest to the second."""


def restart(latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise) -> Walk:
    """Walk by Heun's steps, go back up by noise and walk again (Xu et al., arXiv 2306.14878)."""
    here = sigmas[0]
    for sigma, sigma_next in restart_steps(sigmas):
        if sigma > here:
            latents = latents + noise(here, sigma) * (sigma**2 - here**2).sqrt()
        latents = yield from heun_step(latents, sigma, sigma_next)
        here = sigma_next
    return latents


def restart_steps(sigmas: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """List the steps of a walk with restarts, as many as the schedule has.

    Below 20 steps there is no restart, from 20 on one of 9 steps, and from 36 on there are two,
    each of a quarter of the steps; the main walk has the rest of them, on Karras' schedule.
    """
    steps = len(sigmas) - 1
    if steps < 20:
        return [*pairwise(sigmas)]
    again, times = (9, 1) if steps < 36 else (steps // 4, 2)
    walk = karras(steps - again * times, sigmas[-2].item(), sigmas[0].item())
    low = int((walk - RESTART_SIGMA).abs().argmin())
    top = int((walk - RESTART_TOP).abs().argmin())
    main = [*pairwise(walk)]
    if top >= low:
        return main
    back = karras(again + 1, walk[low].item(), walk[top].item())[:-1]
    return main[:low] + [*pairwise(back)] * times + main[low:]
