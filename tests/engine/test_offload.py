"""Whether components take turns on the device, and the reason that is given for it."""

from __future__ import annotations

import re

import pytest

from lpw_sdxl.engine.offload import (
    EVERYTHING_FITS_BYTES,
    FREE_TO_WEIGHTS,
    DeviceMemory,
    OffloadRule,
    decide_offload,
)

GB = 10**9


@pytest.mark.parametrize(
    ("memory", "weights", "offload", "is_offloading", "rule", "reason"),
    [
        (None, 7, "auto", False, OffloadRule.CPU, "auto: a CPU computes where the weights are"),
        (None, 7, "always", True, OffloadRule.SETTING, "LPW_SDXL_OFFLOAD is always"),
        (
            DeviceMemory(10**12, 10**12),
            7,
            "always",
            True,
            OffloadRule.SETTING,
            "LPW_SDXL_OFFLOAD is always",
        ),
        (DeviceMemory(10, 10), 7, "never", False, OffloadRule.SETTING, "LPW_SDXL_OFFLOAD is never"),
        (
            DeviceMemory(EVERYTHING_FITS_BYTES - 1, 19 * GB),
            GB,
            "auto",
            True,
            OffloadRule.SMALL_DEVICE,
            "auto: 19.9 GB of device memory are less than 20 GB",
        ),
        (
            DeviceMemory(EVERYTHING_FITS_BYTES, 19 * GB),
            7 * GB,
            "auto",
            False,
            OffloadRule.EVERYTHING_FITS,
            "auto: 19.0 GB free of 20.0 GB of device memory are enough for 7.0 GB of weights",
        ),
        (
            DeviceMemory(80 * GB, 10 * GB),
            7 * GB,
            "auto",
            True,
            OffloadRule.LITTLE_FREE,
            "auto: 10.0 GB of device memory are free, less than 10.5 GB, 1.5 times the weights",
        ),
    ],
    ids=["CPU", "CPU, always", "always", "forbidden", "small", "large enough", "others use it"],
)
def test_offloading_is_for_small_devices_or_as_the_setting_says(
    memory: DeviceMemory | None,
    weights: int,
    offload: str,
    is_offloading: bool,
    rule: OffloadRule,
    reason: str,
) -> None:
    decision = decide_offload(memory, weights, offload)
    assert decision == (is_offloading, rule, reason)


@pytest.mark.parametrize("total", [EVERYTHING_FITS_BYTES + n for n in (-(10**8), -1, 0, 1, 10**8)])
@pytest.mark.parametrize("away", [-(10**8), -(10**7), -1, 0, 1, 10**8])
def test_the_numbers_of_a_reason_never_contradict_it(total: int, away: int) -> None:
    weights = 7_107_000_001
    memory = DeviceMemory(total, int(FREE_TO_WEIGHTS * weights) + away)
    decision = decide_offload(memory, weights, "auto")
    first, second = (float(one) for one in re.findall(r"[0-9.]+(?= GB)", decision.reason)[:2])
    if decision.rule is OffloadRule.EVERYTHING_FITS:
        assert not decision.is_offloading
        assert first <= second
        assert second >= EVERYTHING_FITS_BYTES / 1e9
    else:
        assert decision.is_offloading
        assert first < second
