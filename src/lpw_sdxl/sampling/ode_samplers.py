"""Samplers without noise of their own, by sigmas: Euler, Heun, DPM2, LMS and DPM++ 2M.

They solve dx/dsigma = (x - denoised) / sigma (Karras et al., arXiv 2206.00364, algorithm 1), in the
forms of k-diffusion's `sampling.py` (0.1.1, MIT licence).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from lpw_sdxl.sampling.walk import Evaluation, Walk

LMS_ORDER = 4  # derivatives that a step of LMS takes into account


def euler(latents: torch.Tensor, sigmas: torch.Tensor) -> Walk:
    """Step along the derivative (arXiv 2206.00364, algorithm 1 without lines 6 to 8)."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Evaluation(latents, sigma)
        latents = latents + derivative(latents, denoised, sigma) * (sigma_next - sigma)
    return latents


def heun(latents: torch.Tensor, sigmas: torch.Tensor) -> Walk:
    """Step along the mean of the derivatives at both ends (arXiv 2206.00364, algorithm 1)."""
    for sigma, sigma_next in pairwise(sigmas):
        latents = yield from heun_step(latents, sigma, sigma_next)
    return latents


def heun_step(latents: torch.Tensor, sigma: torch.Tensor, sigma_next: torch.Tensor) -> Walk:
    """Take one step of Heun's method; to sigma 0 it is Euler's."""
    slope = derivative(latents, (yield Evaluation(latents, sigma)), sigma)
    ahead = latents + slope * (sigma_next - sigma)
    if sigma_next == 0:
        return ahead
    slope_ahead = derivative(ahead, (yield Evaluation(ahead, sigma_next)), sigma_next)
    return latents + (slope + slope_ahead) * ((sigma_next - sigma) / 2)


def dpm2(latents: torch.Tensor, sigmas: torch.Tensor) -> Walk:
    """Step along the derivative at the geometric middle (DPM-Solver-2, arXiv 2206.00927)."""
    for sigma, sigma_next in pairwise(sigmas):
        latents = yield from dpm2_step(latents, sigma, sigma_next)
    return latents


def dpm2_step(latents: torch.Tensor, sigma: torch.Tensor, sigma_next: torch.Tensor) -> Walk:
    """Take one step of DPM2; to sigma 0 it is Euler's."""
    slope = derivative(latents, (yield Evaluation(latents, sigma)), sigma)
    if sigma_next == 0:
        return latents + slope * (sigma_next - sigma)
    middle = sigma.log().lerp(sigma_next.log(), 0.5).exp()
    halfway = latents + slope * (middle - sigma)
    slope = derivative(halfway, (yield Evaluation(halfway, middle)), middle)
    return latents + slope * (sigma_next - sigma)


def lms(latents: torch.Tensor, sigmas: torch.Tensor) -> Walk:
    """Step along the polynomial through the last derivatives (linear multistep method)."""
    slopes: list[torch.Tensor] = []
    for step, (sigma, _) in enumerate(pairwise(sigmas)):
        slopes.append(derivative(latents, (yield Evaluation(latents, sigma)), sigma))
        slopes = slopes[-LMS_ORDER:]
        weights = _lms_weights(sigmas[step + 1 - len(slopes) : step + 2].tolist())
        terms = (weight * slope for weight, slope in zip(weights, slopes, strict=True))
        latents = sum(terms, start=latents)
    return latents


def dpmpp_2m(latents: torch.Tensor, sigmas: torch.Tensor) -> Walk:
    """Step by DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2).

    In the first step and the last one it is of first order.
    """
    previous: tuple[torch.Tensor, torch.Tensor] | None = None  # prediction and length
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Evaluation(latents, sigma)
        length = sigma.log() - sigma_next.log()
        target = denoised
        if previous is not None and sigma_next > 0:
            ratio = previous[1] / length
            target = (1 + 1 / (2 * ratio)) * denoised - 1 / (2 * ratio) * previous[0]
        latents = sigma_next / sigma * latents - (-length).expm1() * target
        previous = denoised, length
    return latents


def derivative(latents: torch.Tensor, denoised: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Compute how latents change with sigma (arXiv 2206.00364, algorithm 1, line 4)."""
    return (latents - denoised) / sigma


def _lms_weights(sigmas: Sequence[float]) -> list[float]:
    """Integrate the Lagrange polynomials of the last sigmas over the step from them to the next.

    They are cubic at most, for which Gauss's rule of two points is exact.

    Args:
        sigmas: those of the derivatives, oldest first, and the next one.
    """
    *nodes, end = sigmas
    middle, half = (nodes[-1] + end) / 2, (end - nodes[-1]) / 2
    points = middle - half / math.sqrt(3), middle + half / math.sqrt(3)
    return [
        half
        * sum(
            math.prod((point - node) / (own - node) for node in nodes if node != own)
            for point in points
        )
        for own in nodes
    ]
