from __future__ import annotations

import pytest
from pydantic_core import PydanticCustomError

from lpw_sdxl.sampler_table import (
    SAMPLERS,
    SamplerName,
    UnservedSampler,
    find_sampler,
    read_sampler,
)
from lpw_sdxl.sampling.samplers import FORMULAS
from lpw_sdxl.sampling_options import (
    SigmaScheduleType,
    find_noise_source,
    find_sigma_schedule_type,
)


def test_every_name_has_a_row_and_a_formula() -> None:
    assert set(SAMPLERS) == set(FORMULAS) == set(SamplerName)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("euler_a", SamplerName.EULER_ANCESTRAL),
        ("k_euler_a", SamplerName.EULER_ANCESTRAL),
        ("euler_ancestral", SamplerName.EULER_ANCESTRAL),
        ("k_dpm_2", SamplerName.DPM2),
        ("k_dpm_2_a", SamplerName.DPM2_ANCESTRAL),
        ("dpm_2_ancestral", SamplerName.DPM2_ANCESTRAL),
        ("k_dpmpp_2s_a", SamplerName.DPMPP_2S_ANCESTRAL),
        ("dpmpp_2s_ancestral", SamplerName.DPMPP_2S_ANCESTRAL),
        ("k_dpmpp_2m", SamplerName.DPMPP_2M),
        ("dpm++ 2m sde heun", SamplerName.DPMPP_2M_SDE_HEUN),
        ("dpmpp_3m_sde_gpu", SamplerName.DPMPP_3M_SDE),
        ("uni_pc", SamplerName.UNIPC),
        ("restart", SamplerName.RESTART),
        ("DPM++ 2M Karras", None),
    ],
)
def test_samplers_are_found_in_any_spelling(spelling: str, name: SamplerName | None) -> None:
    assert find_sampler(spelling) is name


@pytest.mark.parametrize("spelling", ["DPM fast", "k_dpm_fast", "dpm_adaptive", "ddim_cfgpp"])
def test_a_sampler_that_is_not_served_is_no_other(spelling: str) -> None:
    with pytest.raises(PydanticCustomError, match="is a sampler of AUTOMATIC1111 that is not"):
        read_sampler(spelling)


def test_no_name_is_served_and_not_served() -> None:
    assert all(find_sampler(name) is None for name in UnservedSampler)


@pytest.mark.parametrize(
    ("spelling", "kind"),
    [
        ("automatic", SigmaScheduleType.AUTOMATIC),
        ("karras", SigmaScheduleType.KARRAS),
        ("sgm_uniform", SigmaScheduleType.SGM_UNIFORM),
        ("SGMUniform", SigmaScheduleType.SGM_UNIFORM),
        ("kl_optimal", SigmaScheduleType.KL_OPTIMAL),
        ("align_your_steps", SigmaScheduleType.ALIGN_YOUR_STEPS),
        ("align_your_steps_GITS", SigmaScheduleType.ALIGN_YOUR_STEPS_GITS),
        ("align_your_steps_11", SigmaScheduleType.ALIGN_YOUR_STEPS_11),
        ("ddim_uniform", SigmaScheduleType.DDIM),
        ("turbo", None),
    ],
)
def test_schedule_types_are_found_in_any_spelling(
    spelling: str, kind: SigmaScheduleType | None
) -> None:
    assert find_sigma_schedule_type(spelling) is kind


def test_noise_sources_are_found_in_any_case() -> None:
    assert find_noise_source("NV") == "nv"
    assert find_noise_source("gpu") is None  # A1111's GPU is translated where a text is read
