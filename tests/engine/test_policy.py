from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.engine.policy import (
    NEVER,
    MixedLengths,
    Standing,
    StepKey,
    admit,
    choose_group,
    share_calls,
)
from lpw_sdxl.schema import ImageSize

SMALL = StepKey(ImageSize(128, 128))
LARGE = StepKey(ImageSize(256, 256))


def standing(key: StepKey = SMALL, rows: int = 2, last_step: int = NEVER) -> Standing:
    return Standing(key, rows, last_step)


def test_jobs_of_one_size_share_a_call() -> None:
    assert choose_group([standing(), standing(LARGE), standing()]) == [0, 2]


def test_sizes_take_turns() -> None:
    last = {SMALL: NEVER, LARGE: NEVER}
    turns = []
    for call in range(6):
        active = [standing(SMALL, last_step=last[SMALL]), standing(LARGE, last_step=last[LARGE])]
        key = active[choose_group(active)[0]].key
        last[key] = call
        turns.append(key)
    assert turns == [SMALL, LARGE] * 3


def test_a_size_that_new_jobs_keep_joining_does_not_starve_another() -> None:
    active = [standing(LARGE, last_step=3), standing(SMALL, last_step=4), standing(SMALL)]
    assert choose_group(active) == [0]


def test_nothing_active_chooses_nobody() -> None:
    assert choose_group([]) == []


def test_admission_stops_at_the_rows_of_one_call() -> None:
    assert admit([standing()] * 5, [], max_rows=6) == [0, 1, 2]


def test_rows_under_way_count() -> None:
    assert admit([standing()] * 3, [standing(), standing(rows=1)], max_rows=6) == [0]


def test_a_small_job_does_not_overtake_a_larger_one_of_its_size() -> None:
    assert admit([standing(rows=2), standing(rows=1)], [standing(rows=2)], max_rows=3) == []


def test_a_full_size_does_not_stop_another() -> None:
    waiting = [standing(SMALL), standing(LARGE)]
    assert admit(waiting, [standing(SMALL)], max_rows=2) == [1]


def test_many_sizes_together_have_a_bound() -> None:
    sizes = [StepKey(ImageSize(64 + 8 * number, 64)) for number in range(20)]
    assert admit([standing(size) for size in sizes], [], max_rows=4) == list(range(8))


def test_a_size_that_waits_for_room_is_not_overtaken() -> None:
    active = [standing(StepKey(ImageSize(64 + 8 * n, 64)), rows=2) for n in range(7)]
    waiting = [standing(SMALL, rows=2), standing(LARGE, rows=2), standing(LARGE, rows=1)]
    assert admit(waiting, [*active, standing(SMALL, rows=1)], max_rows=4) == []


def test_a_turn_encodes_so_many_chunks_and_always_one_job() -> None:
    long, longer = Standing(SMALL, 2, chunks=40), Standing(SMALL, 2, chunks=500)
    assert admit([long, long, long], [], max_rows=8) == [0]
    assert admit([longer, long], [], max_rows=8) == [0]
    assert admit([standing(), long, standing()], [], max_rows=8) == [0, 1, 2]


jobs = st.lists(
    st.builds(standing, st.sampled_from([SMALL, LARGE]), st.integers(1, 2), st.integers(-1, 9))
)


@given(waiting=jobs, active=jobs, max_rows=st.integers(2, 16))
def test_admitted_rows_never_exceed_a_call(
    waiting: list[Standing], active: list[Standing], max_rows: int
) -> None:
    chosen = [waiting[index] for index in admit(waiting, active, max_rows)]
    for key in (SMALL, LARGE):
        before = sum(job.rows for job in active if job.key == key)
        added = sum(job.rows for job in chosen if job.key == key)
        assert added == 0 or before + added <= max_rows


@given(active=jobs)
def test_a_group_is_all_the_jobs_of_one_key(active: list[Standing]) -> None:
    group = choose_group(active)
    keys = {active[index].key for index in group}
    assert len(keys) == min(1, len(active))
    assert group == [index for index, job in enumerate(active) if job.key in keys]


def test_rows_of_different_lengths_share_a_masked_call() -> None:
    assert share_calls([77, 154, 77], MixedLengths.MASK) == [[0, 1, 2]]


def test_rows_of_different_lengths_are_grouped_into_calls_of_one_length() -> None:
    assert share_calls([77, 154, 77, 3, 154], MixedLengths.GROUP) == [[0, 2], [1, 4], [3]]


@given(lengths=st.lists(st.integers(2, 6)), way=st.sampled_from(MixedLengths))
def test_every_row_is_in_one_call(lengths: list[int], way: MixedLengths) -> None:
    calls = share_calls(lengths, way)
    assert sorted(row for call in calls for row in call) == list(range(len(lengths)))
    assert all(call == sorted(call) and call for call in calls)
