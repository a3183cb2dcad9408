"""The GPU that a worker sees."""

from __future__ import annotations

import pytest

from lpw_sdxl.api.worker_device import restrict_to_own_gpu


@pytest.mark.parametrize(
    ("before", "worker", "workers", "seen"),
    [
        (None, 1, 2, "0"),
        (None, 2, 2, "1"),
        ("4, 5,6", 2, 3, "5"),
        ("GPU-a,GPU-b", 2, 2, "GPU-b"),
        ("0,1", 1, 1, "0,1"),
        (None, 1, 1, None),
        ("", 2, 2, ""),
    ],
)
def test_each_worker_sees_the_gpu_of_its_number(
    before: str | None, worker: int, workers: int, seen: str | None
) -> None:
    environment = {} if before is None else {"CUDA_VISIBLE_DEVICES": before}
    restrict_to_own_gpu(environment, worker, workers)
    assert environment.get("CUDA_VISIBLE_DEVICES") == seen
