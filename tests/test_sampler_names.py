from __future__ import annotations

import pytest

from lpw_sdxl.sampler_names import SamplerLabel, split_label
from lpw_sdxl.sampler_table import SamplerName
from lpw_sdxl.sampling_options import SigmaScheduleType


@pytest.mark.parametrize("sampler", SamplerName)
@pytest.mark.parametrize("schedule_type", [None, *SigmaScheduleType])
def test_every_label_is_taken_apart(
    sampler: SamplerName, schedule_type: SigmaScheduleType | None
) -> None:
    label = SamplerLabel(sampler, schedule_type)
    text = str(sampler) if schedule_type is None else f"{sampler} {schedule_type}"
    assert split_label(text) == label
    assert split_label(text.lower().replace(" ", "_").replace("++", "pp")) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("DPM++ 2M SDE SGMUniform", (SamplerName.DPMPP_2M_SDE, SigmaScheduleType.SGM_UNIFORM)),
        ("k_dpmpp_sde_ka", (SamplerName.DPMPP_SDE, SigmaScheduleType.KARRAS)),
        ("k_euler_a", (SamplerName.EULER_ANCESTRAL, None)),
        ("EulerDiscreteScheduler", (SamplerName.EULER, None)),
    ],
)
def test_other_spellings_are_known(
    text: str, label: tuple[SamplerName, SigmaScheduleType | None]
) -> None:
    assert split_label(text) == SamplerLabel(*label)


@pytest.mark.parametrize("text", ["", " ", "Karras", "TCD", "Euler Karas", "x " * 40_000, "_" * 99])
def test_other_texts_are_no_label(text: str) -> None:
    assert split_label(text) is None
