from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

import pytest

from jobs import make_job
from lpw_sdxl.engine.cost import NO_WORK, Pace, Work
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.queue import MAX_CANDIDATES, MAX_RETRY_AFTER_S, JobQueue, Load
from lpw_sdxl.errors import (
    DeadlineError,
    OverloadedError,
    TimeLimitError,
    UnavailableError,
)
from lpw_sdxl.imaging import PictureUse
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings

MAX_ROWS = 8
PER_CALL_S, PER_COST_S = 0.1, 0.2
UNBOUNDED = Settings(max_queued_jobs=10_000, max_queued_cost=1e9)


def known_pace() -> Pace:
    """A pace that has seen calls of several costs."""
    pace = Pace()
    for cost in (1.0, 2.0, 4.0) * 20:
        pace.add(cost, PER_CALL_S + PER_COST_S * cost)
    return pace


def make_queue(
    limits: Settings = UNBOUNDED,
    pace: Pace | None = None,
    active: Load = Load(0, NO_WORK),  # noqa: B008 - frozen
) -> JobQueue:
    return JobQueue(limits, MAX_ROWS, pace or Pace(), lambda: active)


def choose_all(jobs: Sequence[Job]) -> list[int]:
    return list(range(len(jobs)))


# make_job(steps=10): 10 calls of 2 megapixels, 2.5 shared calls of 8 rows.
ALONE_S = 10 * PER_CALL_S + 20 * PER_COST_S
QUEUED_S = 2.5 * PER_CALL_S + 20 * PER_COST_S


def test_jobs_leave_oldest_first_as_they_are_chosen() -> None:
    queue = make_queue()
    jobs = [make_job() for _ in range(4)]
    for job in jobs:
        queue.put(job)
    assert queue.take(lambda shown: [2, 0]) == [jobs[0], jobs[2]]
    assert queue.peek(lambda shown: [0] if list(shown) == [jobs[1], jobs[3]] else [])
    assert queue.take(lambda shown: []) == []
    assert queue.take(choose_all) == [jobs[1], jobs[3]]
    assert len(queue) == 0
    assert queue.load == Load(0, NO_WORK)


def test_only_the_oldest_are_shown() -> None:
    queue = make_queue()
    jobs = [make_job() for _ in range(MAX_CANDIDATES + 3)]
    for job in jobs:
        queue.put(job)
    assert queue.take(choose_all) == jobs[:MAX_CANDIDATES]
    assert queue.take(choose_all) == jobs[MAX_CANDIDATES:]


def test_the_load_is_what_waits_and_what_is_under_way() -> None:
    queue = make_queue(active=Load(2, Work(1.5, 30)))
    queue.put(make_job(steps=10))
    assert queue.load == Load(3, Work(1.5 + 2.5, 30 + 20))


def test_the_number_of_jobs_is_bounded_and_one_average_job_is_to_be_waited_for() -> None:
    limits = Settings(max_queued_jobs=3, max_queued_cost=1e9)
    queue = make_queue(limits, known_pace(), active=Load(1, Work(10, 40)))
    queue.put(make_job(steps=10))
    queue.put(make_job(steps=10))
    with pytest.raises(OverloadedError, match="3 of at most 3 jobs") as refused:
        queue.put(make_job())
    average_s = (15 * PER_CALL_S + 80 * PER_COST_S) / 3
    assert refused.value.retry_after_s == math.ceil(average_s)
    assert len(queue) == 2


def test_the_cost_is_bounded_and_the_excess_is_to_be_waited_for() -> None:
    limits = Settings(max_queued_jobs=100, max_queued_cost=90)
    queue = make_queue(limits, known_pace(), active=Load(1, Work(10, 40)))
    queue.put(make_job(steps=10))
    queue.put(make_job(steps=10))
    with pytest.raises(OverloadedError, match="80 of at most 90 megapixel steps") as refused:
        queue.put(make_job(steps=20))  # 40 megapixel steps: 30 too many of 80
    excess_s = 30 / 80 * (15 * PER_CALL_S + 80 * PER_COST_S)
    assert refused.value.retry_after_s == math.ceil(excess_s)
    queue.put(make_job(steps=5))  # a smaller one still fits


def test_a_picture_costs_its_encoding_and_the_steps_that_its_strength_takes() -> None:
    limits = Settings(max_queued_jobs=100, max_queued_cost=90)
    queue = make_queue(limits, known_pace(), active=Load(1, Work(10, 40)))
    queue.put(make_job(steps=20))
    with pytest.raises(OverloadedError, match="this image needs 21") as refused:
        queue.put(make_job(steps=20, picture=PictureUse.WHOLE, strength=0.5))  # 11 too many of 80
    excess_s = 11 / 80 * (15 * PER_CALL_S + 80 * PER_COST_S)
    assert refused.value.retry_after_s == math.ceil(excess_s)
    queue.put(make_job(steps=20, picture=PictureUse.MASKED, strength=0.2))  # 9


def test_a_picture_is_in_time_if_its_share_of_the_steps_is() -> None:
    queue = make_queue(pace=known_pace(), active=Load(1, Work(1, 1)))
    whole = ALONE_S  # of 10 steps; 4 of them and the encoding take less than half
    with pytest.raises(DeadlineError):
        queue.put(make_job(steps=10, picture=PictureUse.WHOLE, strength=1.0, deadline_s=whole / 2))
    queue.put(make_job(steps=10, picture=PictureUse.WHOLE, strength=0.4, deadline_s=whole / 2))
    assert len(queue) == 1


def test_before_anything_is_known_of_the_device_a_second_is_to_be_waited_for() -> None:
    queue = make_queue(Settings(max_queued_jobs=1, max_queued_cost=1e9))
    queue.put(make_job(deadline_s=0.001))  # and nothing is too late
    with pytest.raises(OverloadedError) as refused:
        queue.put(make_job())
    assert refused.value.retry_after_s == 1


@pytest.mark.parametrize("active", [Load(0, NO_WORK), Load(2, NO_WORK)], ids=["empty", "decoding"])
def test_one_job_over_the_cost_may_begin_where_no_work_is_left(active: Load) -> None:
    queue = make_queue(Settings(max_queued_jobs=10, max_queued_cost=1), active=active)
    queue.put(make_job())
    assert len(queue) == 1


def test_a_deadline_that_even_a_lone_image_misses_is_the_clients_mistake() -> None:
    queue = make_queue(pace=known_pace(), active=Load(1, NO_WORK))
    with pytest.raises(DeadlineError, match=f"about {ALONE_S:.1f} s") as refused:
        queue.put(make_job(steps=10, time_limit_s=1000, deadline_s=ALONE_S - 0.5))
    assert refused.value.field == "deadline_s"
    queue.put(make_job(steps=10, deadline_s=ALONE_S + 0.5))


def test_a_time_limit_that_even_a_lone_image_misses_is_the_servers() -> None:
    queue = make_queue(pace=known_pace(), active=Load(1, NO_WORK))
    for fields in ({}, {"deadline_s": ALONE_S + 100}):
        with pytest.raises(TimeLimitError, match="even alone"):
            queue.put(make_job(steps=10, time_limit_s=ALONE_S - 0.5, **fields))
    queue.put(make_job(steps=10, time_limit_s=ALONE_S + 0.5))


def test_a_job_in_an_empty_queue_is_accepted_whatever_the_pace() -> None:
    """A pace from a bad moment would else refuse every job, and never be measured again."""
    queue = make_queue(pace=known_pace())
    queue.put(make_job(steps=10, deadline_s=ALONE_S / 10))
    with pytest.raises(DeadlineError):
        queue.put(make_job(steps=10, deadline_s=ALONE_S / 10))


def test_refused_clients_get_one_retry_after_after_the_other() -> None:
    queue = make_queue(Settings(max_queued_jobs=4, max_queued_cost=1e9), pace=known_pace())
    for _ in range(4):
        queue.put(make_job(steps=10))
    retries_s = []
    for _ in range(100):
        with pytest.raises(OverloadedError) as refused:
            queue.put(make_job(steps=10))
        retries_s.append(refused.value.retry_after_s)
    assert retries_s[:3] == [math.ceil(QUEUED_S * turn) for turn in (1, 2, 3)]
    assert retries_s == sorted(retries_s)
    assert retries_s[-1] == MAX_RETRY_AFTER_S


def test_a_flood_that_is_over_is_not_waited_for() -> None:
    queue = make_queue(Settings(max_queued_jobs=4, max_queued_cost=1e9), pace=known_pace())

    def fill_and_put(times: int) -> list[int]:
        while len(queue) < 4:
            queue.put(make_job(steps=10))
        retries_s = []
        for _ in range(times):
            with pytest.raises(OverloadedError) as refused:
                queue.put(make_job(steps=10))
            retries_s.append(refused.value.retry_after_s)
        return retries_s

    assert fill_and_put(100)[-1] == MAX_RETRY_AFTER_S
    queue.take(choose_all)
    assert fill_and_put(1) == [math.ceil(QUEUED_S)]


def test_a_job_that_only_the_queue_makes_late_gets_a_retry_after() -> None:
    queue = make_queue(pace=known_pace())
    for _ in range(10):
        queue.put(make_job(steps=10))
    left_s = ALONE_S + 20
    with pytest.raises(OverloadedError) as refused:
        queue.put(make_job(steps=10, deadline_s=left_s))
    needed_s = 10 * QUEUED_S + ALONE_S
    assert refused.value.retry_after_s == math.ceil(needed_s - left_s)
    queue.put(make_job(steps=10, deadline_s=needed_s + 1))


def test_a_small_image_is_taken_though_only_large_ones_have_been_seen() -> None:
    pace = Pace()
    for _ in range(10):
        pace.add(8.4, 4.0)
    queue = make_queue(pace=pace)
    queue.put(make_job(ImageSize(64, 64), steps=30, deadline_s=10))
    assert len(queue) == 1


def test_places_say_when_a_job_may_begin() -> None:
    pace = known_pace()
    queue = make_queue(pace=pace, active=Load(4, Work(20, 40), rows=MAX_ROWS - 2))
    jobs = [make_job(steps=10) for _ in range(3)]
    for job in jobs:
        queue.put(job)
    assert [job.place for job in jobs] == [None] * 3
    queue.note_places()
    places = [job.place for job in jobs if job.place is not None]
    assert [place.before for place in places] == [0, 1, 2]
    first, second, third = (place.wait_s for place in places)
    assert first == 0  # there is room for it
    assert second is not None
    assert third is not None
    assert 0 < second < third
    assert third - second == pytest.approx(QUEUED_S, rel=0.01)


def test_a_wait_is_unknown_before_the_first_call() -> None:
    queue = make_queue(active=Load(1, Work(20, 40), rows=MAX_ROWS))
    job = make_job(steps=10)
    queue.put(job)
    queue.note_places()
    assert job.place == (0, None)


def test_late_and_cancelled_jobs_are_dropped() -> None:
    queue = make_queue()
    late, cancelled, both, patient = (
        make_job(deadline_s=deadline) for deadline in (0.01, None, 0.01, 1000)
    )
    for job in (late, cancelled, both, patient):
        queue.put(job)
    assert queue.drop_cancelled_and_late() == []
    cancelled.future.cancel()
    both.future.cancel()
    time.sleep(0.02)
    assert queue.drop_cancelled_and_late() == [late, cancelled, both]
    assert queue.load == Load(1, patient.shared_work(MAX_ROWS))
    assert queue.take(choose_all) == [patient]
    assert queue.drop_cancelled_and_late() == []


def test_a_cancelled_job_is_dropped_though_none_is_late() -> None:
    queue = make_queue()
    jobs = [make_job() for _ in range(3)]
    for job in jobs:
        queue.put(job)
    jobs[1].future.cancel()
    assert queue.drop_cancelled_and_late() == [jobs[1]]
    assert queue.take(choose_all) == [jobs[0], jobs[2]]


def test_a_closed_queue_refuses_jobs_and_returns_those_it_has() -> None:
    queue = make_queue()
    job = make_job()
    queue.put(job)
    queue.close()
    assert queue.is_closed
    with pytest.raises(UnavailableError):
        queue.put(make_job())
    assert queue.wait()
    assert queue.take(choose_all) == [job]
    assert not queue.wait()


def test_draining_closes_and_empties() -> None:
    queue = make_queue()
    jobs = [make_job(), make_job()]
    for job in jobs:
        queue.put(job)
    assert queue.drain() == jobs
    assert queue.drain() == []
    assert queue.is_closed
    assert queue.load == Load(0, NO_WORK)


@pytest.mark.parametrize("end", ["put", "close"])
def test_a_thread_that_waits_is_woken(end: str) -> None:
    queue = make_queue()
    woken: list[bool] = []
    waiter = threading.Thread(target=lambda: woken.append(queue.wait()), daemon=True)
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    actions = {"put": lambda: queue.put(make_job()), "close": queue.close}
    actions[end]()
    waiter.join(10)
    assert woken == [end == "put"]


def test_many_threads_put_and_one_takes_and_nothing_is_lost_or_taken_twice() -> None:
    queue = make_queue()
    each, threads = 150, 8
    taken: list[Job] = []
    dropped = 0

    def put_all(jobs: list[Job]) -> None:
        for index, job in enumerate(jobs):
            queue.put(job)
            if index % 5 == 0:
                job.future.cancel()

    def take_all() -> None:
        nonlocal dropped
        while queue.wait():
            dropped += len(queue.drop_cancelled_and_late())
            taken.extend(queue.take(lambda shown: choose_all(shown)[::2]))

    jobs = [[make_job() for _ in range(each)] for _ in range(threads)]
    taker = threading.Thread(target=take_all)
    putters = [threading.Thread(target=put_all, args=[some]) for some in jobs]
    for thread in (taker, *putters):
        thread.start()
    for thread in putters:
        thread.join()
    queue.close()
    taker.join(30)
    assert not taker.is_alive()
    assert len({id(job) for job in taken}) == len(taken)
    assert len(taken) + dropped == each * threads
    kept = {id(job) for some in jobs for job in some if not job.is_cancelled}
    assert kept <= {id(job) for job in taken}
    assert queue.load == Load(0, NO_WORK)


def test_a_place_counts_as_a_job_until_it_is_given_up() -> None:
    queue = make_queue(Settings(max_queued_jobs=2))
    with queue.place():
        queue.put(make_job())
        with pytest.raises(OverloadedError, match="holds 2 of at most 2 jobs"), queue.place():
            pass
    with queue.place():  # as the failed one keeps none
        queue.put(make_job())
    with pytest.raises(OverloadedError), queue.place():
        pass
    assert len(queue) == 2


def test_places_alone_fill_a_queue_without_work() -> None:
    queue = make_queue(Settings(max_queued_jobs=1))
    with queue.place(), pytest.raises(OverloadedError) as refusal, queue.place():
        pass
    assert refusal.value.retry_after_s >= 1


def test_a_closed_queue_has_no_places() -> None:
    queue = make_queue()
    queue.close()
    with pytest.raises(UnavailableError), queue.place():
        pass


def test_items_of_batches_leave_an_eighth_of_the_queue_to_others() -> None:
    queue = make_queue(Settings(max_queued_jobs=8))
    for _ in range(7):
        with queue.place(leaves_room=True):
            queue.put(make_job())
    with (
        pytest.raises(OverloadedError, match="holds 7 of at most 7 jobs"),
        queue.place(leaves_room=True),
    ):
        pass
    with queue.place():
        queue.put(make_job())
    assert len(queue) == 8
