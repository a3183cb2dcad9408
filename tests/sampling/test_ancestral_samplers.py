from __future__ import annotations

import pytest
import torch

from lpw_sdxl.sampler_table import SAMPLERS, SamplerName, SamplerNoise
from lpw_sdxl.sampling.ancestral_samplers import ancestral_step
from lpw_sdxl.sampling.samplers import FORMULAS
from lpw_sdxl.sampling.walk import Sampling
from sampling_vectors import SHAPE

ANCESTRAL = [
    name
    for name, recipe in SAMPLERS.items()
    if recipe.noise is SamplerNoise.DRAWS and recipe.eta == 1
]


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_variances_of_an_ancestral_step_add_up(eta: float) -> None:
    sigma, sigma_next = torch.tensor([5.0, 2.0])
    down, up = ancestral_step(sigma, sigma_next, eta)
    torch.testing.assert_close(down**2 + up**2, sigma_next**2)
    assert (up > 0) == (eta > 0)


@pytest.mark.parametrize("sampler", ANCESTRAL)
def test_a_step_that_is_all_noise_still_adds_it(sampler: SamplerName) -> None:
    """In float32 the step from 4518 to 0.03 goes down to 0, as with zero terminal SNR."""
    sigmas = torch.tensor([4518.0, 0.03])
    assert ancestral_step(*sigmas, eta=1.0)[0] == 0
    noise, picture = torch.ones(SHAPE), torch.full(SHAPE, 0.5)
    walk = FORMULAS[sampler](noise * sigmas[0], sigmas, noise=lambda *_: noise, eta=1.0)
    sampling = Sampling(walk)
    while not sampling.is_done:
        sampling.advance(picture)
    torch.testing.assert_close(sampling.latents, picture + 0.03 * noise, rtol=0, atol=1e-3)
