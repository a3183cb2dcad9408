from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler, LCMScheduler

from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling_options import TimestepRounding

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SDXL = ModelSigmas.of_sdxl()
ZERO_SNR = ModelSigmas.of_sdxl(zero_terminal_snr=True)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_sigmas_are_those_of_diffusers(zero_snr: bool) -> None:
    stock = EulerDiscreteScheduler(**BETAS, rescale_betas_zero_snr=zero_snr)
    stock_sigmas = ((1 - stock.alphas_cumprod) / stock.alphas_cumprod) ** 0.5
    table = ModelSigmas.of_sdxl(zero_terminal_snr=zero_snr).table
    # Diffusers adds up in float32, and its stand-in for an alpha of 0 is 2^-24.
    torch.testing.assert_close(table[:-1], stock_sigmas[:-1].float(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("model", [SDXL, ZERO_SNR, SDXL.distilled()], ids=["sdxl", "zero", "lcm"])
def test_a_timestep_comes_back_from_its_sigma(model: ModelSigmas) -> None:
    timesteps = torch.tensor([19.0, 20.5, 333.25, 679.0, 999.0])
    sigmas = model.sigma_at(timesteps)
    torch.testing.assert_close(model.timestep_at(sigmas), timesteps, rtol=0, atol=2e-3)


def test_sigmas_between_timesteps_are_log_linear() -> None:
    between = SDXL.sigma_at(torch.tensor(500.5))
    torch.testing.assert_close(between, (SDXL.table[500] * SDXL.table[501]).sqrt())


@pytest.mark.parametrize(("share", "nearest"), [(0.4, 500), (0.6, 501)])
def test_a_rounded_timestep_is_the_nearest(share: float, nearest: int) -> None:
    sigma = SDXL.sigma_at(torch.tensor(500 + share))
    assert SDXL.timestep_at(sigma, TimestepRounding.NEAREST).item() == nearest
    assert SDXL.timestep_at(sigma).item() == pytest.approx(500 + share, abs=1e-3)


@pytest.mark.parametrize(("sigma", "timestep"), [(1e-4, 0), (99.0, 999)])
@pytest.mark.parametrize("rounding", TimestepRounding)
def test_sigmas_beyond_the_ends_have_the_ends_timestep(
    sigma: float, timestep: int, rounding: TimestepRounding
) -> None:
    assert SDXL.timestep_at(torch.tensor(sigma), rounding).item() == timestep


def test_alphas_are_those_of_diffusers() -> None:
    stock = EulerDiscreteScheduler(**BETAS).alphas_cumprod
    torch.testing.assert_close(SDXL.alpha_at(torch.arange(1000.0)), stock, rtol=1e-4, atol=0)


def test_distilled_models_know_the_timesteps_that_diffusers_lcm_chooses_from() -> None:
    stock = LCMScheduler(**BETAS)
    stock.set_timesteps(50, original_inference_steps=50)
    known = SDXL.distilled()
    timesteps = known.timestep_at(known.table.flip(0))
    assert timesteps.round().long().tolist() == stock.timesteps.tolist()
