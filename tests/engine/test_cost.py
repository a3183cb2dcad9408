from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.engine.cost import HALF_LIFE_S, Pace, Work, step_cost
from lpw_sdxl.schema import ImageSize

CALL = Work(1, 0)
MEGAPIXEL = Work(0, 1)


def test_a_call_costs_its_pixels_times_its_rows() -> None:
    assert step_cost(ImageSize(500, 2000), 2) == 2.0


def test_nothing_is_known_before_the_first_call() -> None:
    assert Pace().seconds_for(Work(3, 4)) is None


def test_what_a_call_and_a_megapixel_take_is_found_again() -> None:
    drawn = random.Random(0)
    pace = Pace()
    for _ in range(300):
        cost = drawn.choice([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
        pace.add(cost, (0.020 + 0.035 * cost) * drawn.uniform(0.95, 1.05))
    assert pace.seconds_for(CALL) == pytest.approx(0.020, rel=0.05)
    assert pace.seconds_for(MEGAPIXEL) == pytest.approx(0.035, rel=0.05)
    assert pace.seconds_for(Work(30, 60)) == pytest.approx(30 * 0.020 + 60 * 0.035, rel=0.05)


def test_while_all_calls_cost_the_same_the_time_is_counted_in_the_jobs_favour() -> None:
    pace = Pace()
    for _ in range(50):
        pace.add(8.0, 0.4)
    assert pace.seconds_for(Work(10, 80)) == pytest.approx(4.0)
    larger, smaller = Work(10, 160), Work(10, 0.1)
    assert pace.seconds_for(larger) == pytest.approx(4.0)
    assert pace.seconds_for(smaller) == pytest.approx(0.1 * 0.4 / 8.0)


def test_the_time_before_counts_for_less_and_less() -> None:
    pace = Pace()
    for cost in (2.0, 4.0) * 500:
        pace.add(cost, 0.1 * cost)
    seconds = 0.0
    while seconds < 4 * HALF_LIFE_S:  # now it is ten times as fast
        for cost in (2.0, 4.0):
            pace.add(cost, 0.01 * cost)
            seconds += 0.01 * cost
    assert pace.seconds_for(MEGAPIXEL) == pytest.approx(0.01, rel=0.1)


calls = st.lists(st.tuples(st.floats(0.001, 1000), st.floats(0, 1000)), min_size=1, max_size=50)


@given(calls=calls, work=st.tuples(st.floats(0, 1e4), st.floats(0, 1e6)))
def test_no_estimate_is_negative(
    calls: list[tuple[float, float]], work: tuple[float, float]
) -> None:
    pace = Pace()
    for cost, seconds in calls:
        pace.add(cost, seconds)
    estimate = pace.seconds_for(Work(*work))
    assert estimate is not None
    assert estimate >= 0


@given(calls=calls)
def test_the_estimate_of_all_that_was_seen_is_no_longer_than_it_took(
    calls: list[tuple[float, float]],
) -> None:
    """A fit goes through the middle of what it was fitted to; without decay that is all of it."""
    pace = Pace()
    for cost, seconds in calls:
        pace.add(cost, seconds / 1e6)  # too short for a decay
    seen = Work(len(calls), sum(cost for cost, _ in calls))
    took = sum(seconds for _, seconds in calls) / 1e6
    assert pace.seconds_for(seen) == pytest.approx(took, rel=0.01, abs=1e-9)
