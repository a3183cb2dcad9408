from __future__ import annotations

import pytest
import torch

from lpw_sdxl.engine.memory import MemoryPlan, choose_device
from lpw_sdxl.errors import SettingsError


def test_auto_takes_the_gpu_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingsError, match="LPW_SDXL_DEVICE"):
        choose_device("cuda")


def test_the_cpu_can_be_asked_for() -> None:
    assert choose_device("cpu").type == "cpu"


def test_a_plan_is_one_line_with_device_dtype_and_weights() -> None:
    line = str(MemoryPlan(torch.device("cpu"), torch.float32, 3 * 1024**3, 16))
    assert "\n" not in line
    assert all(part in line for part in ("cpu", "float32", "3.00 GiB", "16 rows"))
