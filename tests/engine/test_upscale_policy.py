"""Which pictures are enlarged together, and when a tile has its turn."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lpw_sdxl.engine.cost import Pace, Work
from lpw_sdxl.engine.upscale_policy import (
    MOST_ENLARGED_PIXELS,
    MOST_UPSCALES,
    admit_upscales,
    choose_tile,
)

WHOLE, HALF = MOST_ENLARGED_PIXELS, MOST_ENLARGED_PIXELS // 2


@dataclass
class Had:
    served: float


@pytest.mark.parametrize(
    ("waiting", "active", "chosen"),
    [
        ([1] * 9, [], [*range(MOST_UPSCALES)]),
        ([1] * 9, [1] * (MOST_UPSCALES - 1), [0]),
        ([1], [1] * MOST_UPSCALES, []),
        ([HALF, HALF, 1], [], [0, 1]),
        ([2 * WHOLE, 1], [], [0]),  # one in any case
        ([WHOLE, 1], [1], []),  # and none overtakes another
        ([], [], []),
    ],
)
def test_few_begin_that_are_small_together(
    waiting: list[int], active: list[int], chosen: list[int]
) -> None:
    assert admit_upscales(waiting, active) == chosen


@pytest.mark.parametrize(
    ("waiting", "stepping", "chosen"),
    [
        ([], [0], None),
        ([5], [], 0),
        ([5, 3, 3], [], 1),
        ([5, 3], [3], 1),
        ([5, 3], [9, 2.9], None),
    ],
)
def test_the_job_that_had_least_has_its_tile_unless_a_call_is_due(
    waiting: list[float], stepping: list[float], chosen: int | None
) -> None:
    assert choose_tile([*map(Had, waiting)], [*map(Had, stepping)]) == chosen


def test_tiles_have_a_pace_of_their_own() -> None:
    pace = Pace()
    assert pace.seconds_for(Work(0, 0, 2)) is None
    pace.add(4.0, 2.0)
    assert pace.seconds_for(Work(0, 0, 2)) == pytest.approx(1.0)  # as a call of that cost
    pace.add_tile(2.0, 6.0)
    assert pace.seconds_for(Work(0, 0, 2)) == pytest.approx(6.0)
    assert pace.seconds_for(Work(1, 4, 2)) == pytest.approx(2.0 + 6.0)
    pace.add_tile(0.0, 600.0)
    pace.add_tile(2.0, 2.0)
    assert pace.seconds_for(Work(0, 0, 2)) > 6.0
