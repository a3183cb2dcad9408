"""LCM, the sampler of models that are distilled to jump to the end at once.

It is the only one here without vectors; it is held against Diffusers' LCM.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from lpw_sdxl.sampling.walk import Evaluation, Noise, Walk

_TIMESTEP_SCALE, _SIGMA_DATA = 10.0, 0.5


def lcm(latents: torch.Tensor, sigmas: torch.Tensor, noise: Noise, timesteps: torch.Tensor) -> Walk:
    """Jump to the denoised latents, and noise them again (Luo et al., arXiv 2310.04378).

    The model is a consistency model: at timestep 0 it would give back the latents it sees
    (section 4, with sigma_data 0.5 and timesteps counted tenfold).

    Args:
        latents: at the first sigma.
        sigmas: descending, `[n + 1]`.
        noise: of unit variance.
        timesteps: of the evaluations, which the model was distilled on, `[n]`.
    """
    for (sigma, sigma_next), timestep in zip(pairwise(sigmas), timesteps, strict=True):
        denoised = yield Evaluation(latents, sigma, timestep)
        seen, scaled = latents / (sigma**2 + 1).sqrt(), timestep * _TIMESTEP_SCALE
        spread = scaled**2 + _SIGMA_DATA**2
        latents = scaled / spread.sqrt() * denoised + _SIGMA_DATA**2 / spread * seen
        if sigma_next > 0:
            latents = latents + sigma_next * noise(sigma, sigma_next)
    return latents
