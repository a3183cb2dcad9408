from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lpw_sdxl import sampling
from lpw_sdxl.sampler_table import SAMPLERS, SamplerName
from lpw_sdxl.sampling.align_your_steps import TABLES
from lpw_sdxl.sampling.model_sigmas import ModelSigmas
from lpw_sdxl.sampling.schedules import make_sigmas
from lpw_sdxl.sampling_options import SigmaScheduleType
from sampling_vectors import read_cases

SIGMAS = read_cases("sampling")["sigmas"]
ZERO_SNR = read_cases("noise")["zero_snr_sigmas"]
TOLERANCE = 1e-6  # relative; the bar is 1e-5
SDXL = ModelSigmas.of_sdxl()


@pytest.mark.parametrize("case", SIGMAS)
def test_sigmas_are_those_of_forge(case: str) -> None:
    schedule_type, steps = case.split("|")
    sigmas = sampling.sigmas(schedule_type, int(steps))
    torch.testing.assert_close(sigmas, torch.tensor(SIGMAS[case]), rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize("case", ZERO_SNR)
def test_sigmas_of_zero_terminal_snr_are_those_of_forge(case: str) -> None:
    schedule_type, steps = case.split("|")
    sigmas = sampling.sigmas(schedule_type, int(steps), zero_terminal_snr=True)
    torch.testing.assert_close(sigmas, torch.tensor(ZERO_SNR[case]), rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 150, 1000])
@pytest.mark.parametrize("kind", SigmaScheduleType)
def test_every_schedule_falls_from_first_to_last(kind: SigmaScheduleType, steps: int) -> None:
    sigmas = make_sigmas(kind, steps, SDXL)
    assert sigmas.dtype == torch.float32
    assert sigmas.isfinite().all()
    assert all(high >= low for high, low in pairwise(sigmas))
    assert (sigmas[-1] == 0) == (kind is not SigmaScheduleType.KL_OPTIMAL)
    if kind is not SigmaScheduleType.DDIM:
        assert len(sigmas) == steps + 1


@pytest.mark.parametrize("sampler", [name for name, row in SAMPLERS.items() if row.walks_timesteps])
def test_automatic_is_the_models_own_spacing_for_samplers_of_timesteps(
    sampler: SamplerName,
) -> None:
    automatic = make_sigmas(SigmaScheduleType.AUTOMATIC, 9, SDXL, sampler)
    assert torch.equal(automatic, make_sigmas(SigmaScheduleType.UNIFORM, 9, SDXL))


@pytest.mark.parametrize(
    ("sampler", "own"),
    [("DPM++ 2M", "Karras"), ("DPM++ 2M SDE", "Exponential"), ("Euler a", "Uniform")],
)
def test_automatic_is_the_samplers_own(sampler: str, own: str) -> None:
    assert torch.equal(sampling.sigmas("Automatic", 9, sampler), sampling.sigmas(own, 9))


@pytest.mark.parametrize("sampler", ["DPM2", "DPM2 a", "DPM++ 3M SDE"])
def test_some_samplers_leave_the_last_sigma_but_one_out(sampler: str) -> None:
    one_more = sampling.sigmas("Karras", 10)
    sigmas = sampling.sigmas("Karras", 9, sampler)
    assert torch.equal(sigmas, torch.cat([one_more[:9], one_more[10:]]))


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_the_right_length_is_used_as_it_is(kind: SigmaScheduleType) -> None:
    table = TABLES[kind]
    assert make_sigmas(kind, len(table), SDXL).tolist() == torch.tensor([*table, 0.0]).tolist()


def test_beta_places_quantiles() -> None:
    """The quantile of a half is the middle of a symmetric distribution."""
    sigmas = make_sigmas(SigmaScheduleType.BETA, 3, SDXL)
    assert sigmas[1].item() == pytest.approx((SDXL.smallest + SDXL.largest) / 2)
