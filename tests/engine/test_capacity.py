"""What one UNet call holds after lacks of memory."""

from __future__ import annotations

import pytest
import torch

from lpw_sdxl.engine.capacity import RECOVERY, Capacity
from lpw_sdxl.engine.description import HardwareDescription
from lpw_sdxl.engine.memory import MemoryRequest, plan_memory
from lpw_sdxl.schema import ImageSize

SIZE = ImageSize(100, 100)
ROW_PIXELS = 10_000
CPU = torch.device("cpu")


@pytest.fixture
def capacity() -> Capacity:
    """Eight rows of SIZE, or of anything smaller."""
    return Capacity(
        plan_memory(
            MemoryRequest(8, SIZE),
            HardwareDescription("cpu", "CPU", 0),
            (torch.float32, torch.float32),
            0,
            None,
        )
    )


@pytest.mark.parametrize(
    ("size", "rows"),
    [(SIZE, 8), (ImageSize(50, 50), 8), (ImageSize(200, 100), 4), (ImageSize(1000, 1000), 1)],
)
def test_a_call_holds_what_is_planned_and_at_least_one_row(
    capacity: Capacity, size: ImageSize, rows: int
) -> None:
    assert capacity.row_limit(size) == rows


@pytest.mark.parametrize(("tried", "rows"), [(8, 4), (5, 2), (1, 1)])
def test_a_lack_of_memory_halves_what_was_tried(capacity: Capacity, tried: int, rows: int) -> None:
    capacity.begin(SIZE, tried)
    capacity.shrink()
    assert capacity.row_limit(SIZE) == rows
    capacity.shrink()  # the same call lacks no memory twice
    assert capacity.row_limit(SIZE) == rows


def test_a_lack_of_memory_outside_a_call_changes_nothing(capacity: Capacity) -> None:
    capacity.shrink()
    capacity.begin(SIZE, 8)
    capacity.end()
    capacity.shrink()
    assert capacity.row_limit(SIZE) == 8


def test_calls_that_go_well_let_it_grow_to_what_is_planned(capacity: Capacity) -> None:
    capacity.begin(SIZE, 8)
    capacity.shrink()
    calls = 0
    while capacity.row_limit(SIZE) < 8:
        capacity.grow()
        calls += 1
    assert RECOVERY ** (calls - 1) < 2 <= RECOVERY**calls
    capacity.grow()
    assert capacity.call_pixels == 8 * ROW_PIXELS


def test_what_was_learned_can_be_taken_back(capacity: Capacity) -> None:
    before = capacity.call_pixels
    capacity.begin(SIZE, 2)
    capacity.shrink()
    capacity.restore(before)
    assert capacity.row_limit(SIZE) == 8
