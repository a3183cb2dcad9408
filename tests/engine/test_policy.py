from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.engine.cost import step_cost
from lpw_sdxl.engine.phases import MIN_PHASE_TRANSFERS, Phase, choose_phase
from lpw_sdxl.engine.policy import (
    ACTIVE_CALLS,
    MAX_CALLS_PASSED_OVER,
    NO_MIXING,
    TURN_CHUNKS,
    JobView,
    LoraMixing,
    RowLimit,
    StepKey,
    admit,
    choose_group,
    least_served,
    order_to_begin,
    served_after,
    served_at_first,
    share_calls,
)
from lpw_sdxl.lora.sets import NO_LORAS, LoraSet
from lpw_sdxl.schema import ImageSize

SMALL = StepKey(ImageSize(128, 128))
LARGE = StepKey(ImageSize(256, 256))


def view(key: StepKey = SMALL, rows: int = 2, served: float = 0.0, chunks: int = 2) -> JobView:
    return JobView(key, rows, served, chunks)


def constant(rows: int) -> RowLimit:
    return lambda size: rows


# Which jobs are stepped.


def test_jobs_of_one_size_share_a_call() -> None:
    assert choose_group([view(), view(LARGE), view()], constant(16)) == [0, 2]


def test_the_least_served_job_decides_whose_turn_it_is() -> None:
    active = [view(served=2.0), view(LARGE, served=1.0), view(served=3.0)]
    assert choose_group(active, constant(16)) == [1]


def test_a_call_that_is_full_takes_the_least_served() -> None:
    active = [view(served=served) for served in (3.0, 1.0, 2.0, 1.0)]
    assert choose_group(active, constant(4)) == [1, 3]


def test_a_job_that_does_not_fit_lets_a_smaller_one_fill_the_call() -> None:
    active = [view(), view(rows=2, served=1.0), view(rows=1, served=2.0)]
    assert choose_group(active, constant(3)) == [0, 2]


def test_one_job_goes_though_its_rows_do_not_fit() -> None:
    assert choose_group([view(rows=2), view(rows=1)], constant(1)) == [0]


def test_without_active_jobs_no_group_is_chosen() -> None:
    assert choose_group([], constant(16)) == []


keys = st.sampled_from([SMALL, LARGE])
jobs = st.lists(
    st.builds(view, keys, st.integers(1, 9), st.floats(0, 9), st.integers(1, 40)), max_size=20
)


@given(active=jobs, rows=st.integers(1, 16))
def test_a_group_is_of_one_key_fits_and_holds_the_least_served(
    active: list[JobView], rows: int
) -> None:
    group = choose_group(active, constant(rows))
    assert group == sorted(set(group))
    chosen = [active[index] for index in group]
    assert len({job.key for job in chosen}) == min(1, len(active))
    if active:
        assert min(job.served for job in chosen) == min(job.served for job in active)
        assert len(chosen) == 1 or sum(job.rows for job in chosen) <= rows


def test_ordinary_jobs_begin_in_the_order_of_their_age() -> None:
    assert order_to_begin([2, 15, 2, 31], [4.0, 3.0, 2.0, 1.0]) == [0, 1, 2, 3]
    assert order_to_begin([2] * 5, [0.0] * 5) == [0, 1, 2, 3, 4]
    assert order_to_begin([], []) == []


def test_very_long_prompts_give_way_for_a_while() -> None:
    # 128 chunks wait eight times as long.
    assert order_to_begin([128, 128, 2], [7.9, 7.0, 1.0]) == [2, 0, 1]
    assert order_to_begin([128, 128, 2], [8.1, 7.0, 1.0]) == [0, 2, 1]


# Over time.


@dataclass
class Runner:
    """A job of the simulation."""

    view: JobView
    steps: int
    name: str = ""
    stepped_at: list[int] = field(default_factory=list)  # numbers of calls

    @property
    def cost(self) -> float:
        return step_cost(self.view.key.size, self.view.rows)

    def serve(self, served: float) -> None:
        self.view = dataclasses.replace(self.view, served=served)


@dataclass
class Device:
    """Steps jobs as the loop does, in a time of its own: a call lasts what its rows cost."""

    row_limit: RowLimit
    active: list[Runner] = field(default_factory=list)
    time: float = 0.0
    calls: int = 0
    busy: Counter[str] = field(default_factory=Counter)  # each job's part of the time

    def join(self, runner: Runner) -> None:
        active = [one.view for one in self.active]
        runner.serve(served_at_first(runner.view.call_cost, active))
        self.active.append(runner)

    def step(self) -> None:
        group = choose_group([one.view for one in self.active], self.row_limit)
        chosen = [self.active[index] for index in group]
        self.time += sum(one.cost for one in chosen)
        self.calls += 1
        served = served_after([one.view for one in chosen])
        for runner, amount in zip(chosen, served, strict=True):
            runner.serve(amount)
            runner.stepped_at.append(self.calls)
            self.busy[runner.name] += runner.cost
        self.active = [one for one in self.active if len(one.stepped_at) < one.steps]


def square(side: int, steps: int, name: str = "", rows: int = 2) -> Runner:
    return Runner(view(StepKey(ImageSize(side, side)), rows), steps, name)


def test_a_small_image_that_joins_a_large_one_is_done_after_one_more_large_call() -> None:
    device = Device(constant(16))
    large, small = square(2048, 30), square(64, 30)
    device.join(large)
    for _ in range(5):
        device.step()
    device.join(small)
    before = len(large.stepped_at)
    while small in device.active:
        device.step()
    assert len(small.stepped_at) == 30
    assert len(large.stepped_at) - before <= 1


@pytest.mark.parametrize("crowd_side", [1024, 512], ids=["same cost", "smaller"])
def test_the_devices_time_is_shared_by_jobs_and_not_by_sizes(crowd_side: int) -> None:
    device = Device(constant(16))
    for number in range(7):
        device.join(square(crowd_side, 10_000, f"crowd {number}"))
    device.join(square(1032, 10_000, "loner"))
    for _ in range(2000):
        device.step()
    shares = {name: busy / device.time for name, busy in device.busy.items()}
    assert len(shares) == 8
    assert all(share == pytest.approx(1 / 8, rel=0.02) for share in shares.values())


def test_a_job_that_shared_a_call_does_not_wait_for_it_later() -> None:
    """With guidance (two rows) beside one without it, whose turn it was."""
    device = Device(constant(16))
    guided, unguided, other = square(512, 90), square(512, 40, rows=1), square(520, 90)
    for runner in (guided, unguided, other):
        device.join(runner)
    while unguided in device.active:
        device.step()
    for _ in range(4):
        device.step()
    assert guided.stepped_at[-1] >= device.calls - 1
    assert other.stepped_at[-1] >= device.calls - 1


def test_one_step_jobs_that_keep_coming_do_not_starve_another() -> None:
    device = Device(constant(2))
    patient = square(128, 5)
    device.join(patient)
    device.step()
    device.join(square(120, 1))
    for number in range(30):
        device.join(square(136 if number % 2 else 120, 1))  # one of them has not begun, always
        device.step()
    assert patient not in device.active


arrivals = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 9)),  # steps, pause, size
    min_size=1,
    max_size=120,
)


def longest_wait(device: Device, to_come: list[tuple[Runner, int]], places: int) -> int:
    """Let jobs join, each some calls after the one before; return the longest wait, calls."""
    runners = [runner for runner, _ in to_come]
    joined_at: dict[int, int] = {}
    turn, due = 0, 0
    while to_come or device.active:
        while to_come and due <= turn and len(device.active) < places:
            runner, pause = to_come.pop(0)
            joined_at[id(runner)] = device.calls
            device.join(runner)
            due = turn + pause
        turn += 1
        if device.active:
            device.step()
    waits = []
    for runner in runners:
        times = [joined_at[id(runner)], *runner.stepped_at]
        assert len(runner.stepped_at) == runner.steps
        waits += [after - before for before, after in pairwise(times)]
    return max(waits)


@given(arrivals=arrivals, places=st.integers(2, 6))
def test_no_job_starves_however_many_keep_coming(
    arrivals: list[tuple[int, int, int]], places: int
) -> None:
    """Jobs of equal cost and ten shapes, one job a call: each waits for two rounds at most."""
    shapes = [ImageSize(2 ** (6 + number), 2 ** (15 - number)) for number in range(10)]
    to_come = [
        (Runner(view(StepKey(shapes[shape])), steps), pause) for steps, pause, shape in arrivals
    ]
    assert longest_wait(Device(constant(2)), to_come, places) <= 2 * places


@given(arrivals=arrivals, places=st.integers(2, 6), rows=st.integers(1, 6))
def test_no_job_waits_for_ever_among_all_sizes(
    arrivals: list[tuple[int, int, int]], places: int, rows: int
) -> None:
    """Four times the pixels are up to four steps of each other job, and one more."""
    sides = [512, 768, 1024]
    to_come = [(square(sides[size % 3], steps), pause) for steps, pause, size in arrivals]
    assert longest_wait(Device(constant(rows)), to_come, places) <= 2 * places * (4 + 1)


def test_an_endless_stream_of_small_images_costs_a_large_one_no_more_than_its_share() -> None:
    device = Device(constant(16))
    large = square(2048, 20)
    device.join(large)
    while large in device.active:
        if sum(one is not large for one in device.active) < 1:
            device.join(square(512, 4))
        device.step()
    alone = 20 * large.cost
    assert device.time <= 2.1 * alone


# Which jobs begin.


def test_admission_stops_at_the_rows_of_one_call() -> None:
    assert admit([view()] * 5, [], 6, constant(6)) == [0, 1, 2]


def test_admission_stops_at_what_fits_of_that_size() -> None:
    def by_size(size: ImageSize) -> int:
        return 2 if size == LARGE.size else 6

    waiting = [view(LARGE), view(LARGE), view(SMALL), view(SMALL)]
    assert admit(waiting, [], 6, by_size) == [0, 2, 3]


def test_rows_under_way_count() -> None:
    active = [view(), view(rows=1)]
    assert admit([view()] * 3, active, 6, constant(6)) == [0]


def test_a_small_job_does_not_overtake_a_larger_one_of_its_size() -> None:
    waiting = [view(rows=2), view(rows=1)]
    assert admit(waiting, [view(rows=2)], 3, constant(3)) == []


def test_a_full_size_does_not_stop_another() -> None:
    waiting = [view(SMALL), view(LARGE)]
    assert admit(waiting, [view(SMALL)], 2, constant(2)) == [1]


def test_a_size_of_which_no_row_fits_still_begins_with_one_job() -> None:
    assert admit([view(LARGE)] * 3, [], 2, constant(1)) == [0]


def test_many_sizes_together_have_a_bound() -> None:
    sizes = [StepKey(ImageSize(64 + 8 * number, 64)) for number in range(20)]
    chosen = admit([view(size) for size in sizes], [], 4, constant(4))
    assert chosen == list(range(ACTIVE_CALLS * 4 // 2))


def test_a_job_that_waits_for_the_common_bound_is_not_overtaken() -> None:
    active = [view(StepKey(ImageSize(64 + 8 * n, 64))) for n in range(7)]
    active.append(view(SMALL, rows=1))
    waiting = [view(LARGE, rows=2), view(StepKey(ImageSize(512, 64)), rows=1)]
    assert admit(waiting, active, 4, constant(4)) == []
    assert admit(waiting[1:], active, 4, constant(4)) == [0]


def test_rows_that_come_back_count_for_the_common_bound() -> None:
    active = [view(StepKey(ImageSize(64 + 8 * n, 64)), rows=1) for n in range(7)]
    assert admit([view(LARGE, rows=1)], active, 2, constant(2)) == [0]
    assert admit([view(LARGE, rows=1)], active, 2, constant(2), later_rows=1) == []


def test_a_job_of_more_rows_than_the_common_bound_begins_alone() -> None:
    many = view(rows=9)
    assert admit([many, view(LARGE)], [], 2, constant(2)) == [0]
    assert admit([view(LARGE), many, view(LARGE)], [], 2, constant(2)) == [0]
    assert admit([many], [view(LARGE, rows=1)], 2, constant(2)) == []


def test_a_turn_encodes_so_many_chunks_and_always_one_job() -> None:
    half, huge = view(chunks=TURN_CHUNKS // 2), view(chunks=10 * TURN_CHUNKS)
    assert admit([half, half, half], [], 16, constant(16)) == [0, 1]
    assert admit([huge, half], [], 16, constant(16)) == [0]
    assert admit([half, huge, view()], [], 16, constant(16)) == [0]


@given(waiting=jobs, active=jobs, max_rows=st.integers(1, 16), fitting=st.integers(1, 16))
def test_admission_keeps_its_bounds(
    waiting: list[JobView], active: list[JobView], max_rows: int, fitting: int
) -> None:
    chosen = admit(waiting, active, max_rows, constant(fitting))
    assert chosen == sorted(set(chosen))
    begun = [waiting[index] for index in chosen]
    for key in (SMALL, LARGE):
        before = sum(job.rows for job in active if job.key == key)
        added = [job.rows for job in begun if job.key == key]
        assert not added or before + sum(added) <= fitting or (before == 0 and len(added) == 1)
        of_key = [index for index, job in enumerate(waiting) if job.key == key]
        assert [index for index in chosen if index in of_key] == of_key[: len(added)]
    has_room = sum(job.rows for job in [*active, *begun]) <= ACTIVE_CALLS * max_rows
    assert not begun or has_room or (not active and len(begun) == 1)
    assert len(begun) <= 1 or sum(job.chunks for job in begun) <= TURN_CHUNKS
    assert begun or active or not waiting


# Which rows share a call.


def test_rows_that_fit_share_one_call() -> None:
    assert [[*call] for call in share_calls(3, 16)] == [[0, 1, 2]]


def test_rows_that_do_not_fit_into_one_call_are_divided() -> None:
    assert [[*call] for call in share_calls(5, 2)] == [[0, 1], [2, 3], [4]]


@given(rows=st.integers(0, 40), max_rows=st.integers(1, 5))
def test_every_row_is_in_one_call_and_calls_are_few(rows: int, max_rows: int) -> None:
    calls = share_calls(rows, max_rows)
    assert [row for call in calls for row in call] == [*range(rows)]
    assert all(0 < len(call) <= max_rows for call in calls)
    assert len(calls) == math.ceil(rows / max_rows)


# One component at a time.

EVERYTHING = frozenset(Phase)


@pytest.mark.parametrize(
    ("work", "current", "seconds_here", "chosen"),
    [
        ({Phase.STEP}, Phase.STEP, 1e9, Phase.STEP),
        (set(), Phase.STEP, 1e9, Phase.STEP),
        (EVERYTHING, Phase.STEP, MIN_PHASE_TRANSFERS - 0.1, Phase.STEP),
        (EVERYTHING, Phase.STEP, MIN_PHASE_TRANSFERS, Phase.PICTURE),
        (EVERYTHING, Phase.PICTURE, MIN_PHASE_TRANSFERS, Phase.ENCODE),
        (EVERYTHING, Phase.ENCODE, MIN_PHASE_TRANSFERS, Phase.STEP),
        ({Phase.ENCODE, Phase.STEP}, Phase.STEP, MIN_PHASE_TRANSFERS, Phase.ENCODE),
        ({Phase.ENCODE, Phase.PICTURE}, Phase.STEP, 0.0, Phase.PICTURE),
        ({Phase.STEP}, Phase.ENCODE, 0.0, Phase.STEP),
    ],
    ids=[
        "no other has work",
        "none has work",
        "not long enough",
        "long enough",
        "after the last comes the first",
        "in the order of an image",
        "a phase without work is skipped",
        "nothing left here",
        "nothing left here, and one waits",
    ],
)
def test_a_phase_lasts_so_many_transfers(
    work: set[Phase], current: Phase, seconds_here: float, chosen: Phase
) -> None:
    assert choose_phase(frozenset(work), current, seconds_here, transfer_s=1.0) is chosen


def transfers_and_share(jobs: int) -> tuple[int, float]:
    """Keep so many images under way till 200 are done; return transfers and their share of time.

    10 to 40 steps of 0.1 s, an encoding 0.05 s, a decode 0.3 s, a transfer 1 s.
    """
    drawn = random.Random(0)
    now, came_at, transfers = 0.0, 0.0, 0
    phase, done, finished = Phase.ENCODE, 0, 0
    waiting = jobs
    stepping: list[int] = []
    while done < 200:
        work = {
            Phase.ENCODE: waiting > 0,
            Phase.STEP: bool(stepping),
            Phase.PICTURE: finished > 0,
        }
        having = frozenset(one for one, has_work in work.items() if has_work)
        chosen = choose_phase(having, phase, now - came_at, transfer_s=1.0)
        if chosen is not phase:
            now, transfers = now + 1.0, transfers + 1
            phase, came_at = chosen, now
        if phase is Phase.ENCODE:
            now += 0.05 * waiting
            stepping += [drawn.randint(10, 40) for _ in range(waiting)]
            waiting = 0
        elif phase is Phase.STEP:
            now += 0.1
            finished += stepping.count(1)
            stepping = [left - 1 for left in stepping if left > 1]
        else:
            now += 0.3
            finished, done, waiting = finished - 1, done + 1, waiting + 1
    return transfers, transfers / now


def test_transfers_take_little_time_where_there_is_enough_work() -> None:
    _, share = transfers_and_share(32)
    assert share < 0.2


@pytest.mark.parametrize("jobs", [1, 2, 4, 8])
def test_few_jobs_share_transfers(jobs: int) -> None:
    """Three transfers for all that are under way are the fewest that there can be."""
    transfers, _ = transfers_and_share(jobs)
    assert transfers <= 3 * (200 / jobs + 1)


# LoRAs.


def lora_set(number: int) -> LoraSet:
    return ((f"lora {number}", 1.0),) if number else NO_LORAS


def with_set(number: int, served: float = 0.0, key: StepKey = SMALL, rows: int = 2) -> JobView:
    return JobView(key, rows, served, loras=lora_set(number))


def mixing(max_sets: int, *at_hand: int) -> LoraMixing:
    return LoraMixing(max_sets, {lora_set(number) for number in (0, *at_hand)}.__contains__)


def test_a_call_has_no_more_sets_than_may_be_mixed() -> None:
    active = [with_set(number) for number in (1, 2, 2, 3, 0, 1)]
    assert choose_group(active, constant(16), mixing(2, 1, 2, 3)) == [0, 1, 2, 5]
    assert choose_group(active, constant(16), mixing(1, 1, 2, 3)) == [0, 5]
    assert choose_group(active, constant(16), mixing(4, 1, 2, 3)) == [0, 1, 2, 3, 4, 5]
    assert choose_group(active, constant(16), NO_MIXING) == [0, 5]


def test_sets_that_all_find_room_are_made_when_their_turn_comes() -> None:
    active = [with_set(0, served=1.0), with_set(1), with_set(2, served=2.0)]
    assert choose_group(active, constant(2), mixing(3)) == [1]
    assert choose_group(active, constant(16), mixing(3)) == [0, 1, 2]


def test_a_set_at_hand_goes_before_one_that_would_take_its_place() -> None:
    cost = step_cost(SMALL.size, 2)
    active = [with_set(2), with_set(1, served=cost), with_set(3, served=cost), with_set(0, cost)]
    assert choose_group(active, constant(16), mixing(2, 1)) == [1, 3]


def test_it_goes_first_only_while_its_job_was_not_served_much_more() -> None:
    lead = MAX_CALLS_PASSED_OVER * step_cost(SMALL.size, 2)
    active = [with_set(2), with_set(1, served=lead)]
    assert choose_group(active, constant(16), mixing(1, 1)) == [1]
    active = [with_set(2), with_set(1, served=1.01 * lead)]
    assert choose_group(active, constant(16), mixing(1, 1)) == [0]


def test_it_goes_first_only_for_a_few_calls() -> None:
    active = [with_set(2), with_set(1)]
    for passed_over in range(MAX_CALLS_PASSED_OVER):
        assert choose_group(active, constant(16), mixing(1, 1), passed_over) == [1]
    assert choose_group(active, constant(16), mixing(1, 1), MAX_CALLS_PASSED_OVER) == [0]


sets_at_hand = st.sets(st.integers(0, 5))
jobs_with_sets = st.lists(
    st.builds(with_set, st.integers(0, 5), st.floats(0, 9), keys, st.integers(1, 2)),
    min_size=1,
    max_size=20,
)


@given(
    active=jobs_with_sets,
    rows=st.integers(1, 16),
    max_sets=st.integers(1, 8),
    at_hand=sets_at_hand,
    passed_over=st.integers(0, MAX_CALLS_PASSED_OVER),
)
def test_a_group_of_sets_is_of_one_key_fits_and_has_the_least_served_or_a_set_at_hand(
    active: list[JobView], rows: int, max_sets: int, at_hand: set[int], passed_over: int
) -> None:
    one = mixing(max_sets, *at_hand)
    group = choose_group(active, constant(rows), one, passed_over)
    assert group
    assert group == sorted(set(group))
    chosen = [active[index] for index in group]
    assert len({job.key for job in chosen}) == 1
    assert len(chosen) == 1 or sum(job.rows for job in chosen) <= rows
    assert len({job.loras for job in chosen}) <= max_sets
    least = least_served(active)
    if least not in group:
        assert passed_over < MAX_CALLS_PASSED_OVER
        assert not one.is_at_hand(active[least].loras)
        assert any(one.is_at_hand(job.loras) for job in chosen)


@dataclass
class LoraDevice(Device):
    """A device whose memory holds a few sets, and drops the least recently used."""

    max_sets: int = 1
    held: list[LoraSet] = field(default_factory=list)
    made: int = 0
    passed_over: int = 0

    def step(self) -> None:
        mix = LoraMixing(self.max_sets, lambda loras: not loras or loras in self.held)
        views = [one.view for one in self.active]
        group = choose_group(views, self.row_limit, mix, self.passed_over)
        self.passed_over = 0 if least_served(views) in group else self.passed_over + 1
        chosen = [self.active[index] for index in group]
        for loras in {one.view.loras for one in chosen} - {NO_LORAS}:
            if loras in self.held:
                self.held.remove(loras)
            else:
                self.made += 1
            self.held = [*self.held, loras][-self.max_sets :]
        self.calls += 1
        served = served_after([one.view for one in chosen])
        for runner, amount in zip(chosen, served, strict=True):
            runner.serve(amount)
            runner.stepped_at.append(self.calls)
        self.active = [one for one in self.active if len(one.stepped_at) < one.steps]


def runner_with(number: int, steps: int) -> Runner:
    return Runner(with_set(number), steps)


@pytest.mark.parametrize("max_sets", [1, 2])
@pytest.mark.parametrize("steps", [2, 4, 30])
def test_jobs_at_hand_that_keep_coming_do_not_starve_one_that_is_not(
    max_sets: int, steps: int
) -> None:
    device = LoraDevice(constant(8), max_sets=max_sets)
    others = [1, 0][:max_sets]
    for number in others:
        device.join(runner_with(number, steps))
    device.step()
    patient = runner_with(2, 20)
    device.join(patient)
    for turn in range(1000):
        if patient not in device.active:
            break
        if turn % 2 == 0 and len(device.active) < 12:
            device.join(runner_with(others[turn // 2 % max_sets], steps))
        device.step()
    assert patient not in device.active
    waits = [after - before for before, after in pairwise([1, *patient.stepped_at])]
    # At worst all others are first served as much as this one, and then for some calls more.
    assert max(waits) <= 12 * (MAX_CALLS_PASSED_OVER + 1)
    assert patient.stepped_at[-1] <= 20 * 2 * (MAX_CALLS_PASSED_OVER + 1)


@pytest.mark.parametrize(("sets", "max_sets"), [(2, 1), (3, 1), (9, 8), (12, 4), (16, 8)])
def test_more_sets_than_there_is_room_for_are_not_made_for_every_call(
    sets: int, max_sets: int
) -> None:
    device = LoraDevice(constant(2 * max_sets), max_sets=max_sets)
    for number in range(1, sets + 1):
        device.join(runner_with(number, 30))
    while device.active:
        device.step()
    # Each call is of `max_sets` sets; to make them each time would be as many as all the steps.
    assert device.made <= 30 * sets / MAX_CALLS_PASSED_OVER + sets


@given(
    to_come=st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(0, 2)), min_size=1, max_size=60
    ),
    max_sets=st.integers(1, 4),
)
def test_no_job_starves_whatever_sets_come(
    to_come: list[tuple[int, int, int]], max_sets: int
) -> None:
    device = LoraDevice(constant(8), max_sets=max_sets)
    waiting = [(runner_with(number, steps), pause) for number, steps, pause in to_come]
    assert longest_wait(device, waiting, places=12) <= 12 * (MAX_CALLS_PASSED_OVER + 1)


def test_no_job_comes_to_a_size_by_its_next_pass_while_an_older_one_waits_for_it() -> None:
    """Their calls of that size are not asked again: a stream of them would keep it out for ever."""
    passing = dataclasses.replace(view(), later_key=LARGE)
    active = [view(LARGE, rows=16)]
    assert admit([passing, view()], active, 16, constant(16)) == [0, 1]
    assert admit([view(LARGE), passing, view()], active, 16, constant(16)) == [2]
