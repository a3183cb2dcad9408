"""Restart: Heun's steps down, noise back up, and down again (Xu et al., arXiv 2306.14878).

Its numbers of steps and its two sigmas are AUTOMATIC1111's.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from lpw_sdxl.sampling.ode_samplers import heun_step
from lpw_sdxl.sampling.schedules import karras
from lpw_sdxl.sampling.walk import Noise, Walk

RESTART_SIGMA, RESTART_TOP = 0.1, 2.0
"""A restart goes from the sigma nearest to the first up to the one nearest to the second."""


def restart(latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise) -> Walk:
    """Walk by Heun's steps; where a step begins above the last one's end, noise leads there.

    Before the first one is none: by rounding, the walk's first sigma may be above the schedule's.
    """
    steps = restart_steps(sigmas)
    here = steps[0][0]
    for sigma, sigma_next in steps:
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
