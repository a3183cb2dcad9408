from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from jobs import MEGAPIXEL, make_job
from lpw_sdxl.engine.active import ActiveJobs
from lpw_sdxl.engine.cost import ENCODING_ROWS, step_cost
from lpw_sdxl.engine.job import Job
from lpw_sdxl.engine.policy import MAX_CALLS_PASSED_OVER, NO_MIXING, LoraMixing
from lpw_sdxl.imaging import PictureUse
from lpw_sdxl.lora.sets import LoraSet, LoraSets
from lpw_sdxl.schema import ImageSize

MAX_ROWS = 4
INK: LoraSet = (("ink", 1.0),)


class FakeDenoising:
    """The part of a job's denoising on which the order of jobs depends."""

    def __init__(self, *, is_done: bool = False) -> None:
        self.is_done = is_done
        self.row_count = 2
        self.unet_calls_done = 0


def encoded(*, is_done: bool = False, **fields: Any) -> Job:
    job = make_job(**fields)
    job.denoising = cast("Any", FakeDenoising(is_done=is_done))
    return job


def with_picture(size: ImageSize = MEGAPIXEL) -> Job:
    """A job whose prompts are encoded, and whose picture is not."""
    job = make_job(size, picture=PictureUse.WHOLE)
    job.start = cast("Any", object())
    return job


@pytest.fixture
def active() -> ActiveJobs:
    return ActiveJobs(MAX_ROWS, lambda _: MAX_ROWS, NO_MIXING)


def test_a_job_steps_when_it_is_encoded_and_until_it_is_done(active: ActiveJobs) -> None:
    waits, steps, done = make_job(), encoded(), encoded(is_done=True)
    active.begin([waits, steps, done])
    assert [*active] == [waits, steps, done]
    assert active.stepping() == [steps]
    assert active.finished() == [done]


def test_pictures_are_encoded_oldest_first_as_many_as_are_not_larger_together(
    active: ActiveJobs,
) -> None:
    small, half = ImageSize(500, 500), ImageSize(1000, 500)
    sizes = [small, half, small, small, half]
    jobs = [with_picture(size) for size in sizes]
    active.begin([make_job(), encoded(), *jobs])
    assert active.waiting_for_pictures(1_000_000) == jobs[:3]
    assert active.waiting_for_pictures(1_000_000 - 1) == jobs[:2]
    assert active.waiting_for_pictures(0) == jobs[:1]  # one in any case
    for job in jobs[:3]:
        job.denoising = cast("Any", FakeDenoising())
    assert active.waiting_for_pictures(1_000_000) == jobs[3:]
    assert active.stepping()[1:] == jobs[:3]


def test_a_picture_that_waits_is_work_until_it_is_encoded(active: ActiveJobs) -> None:
    job = with_picture()
    active.begin([job])
    steps = job.spec.unet_calls
    assert job.work == (
        steps,
        steps * step_cost(MEGAPIXEL, 2) + step_cost(MEGAPIXEL, ENCODING_ROWS),
        0.0,
    )
    job.denoising = cast("Any", FakeDenoising())
    assert job.work == (steps, steps * step_cost(MEGAPIXEL, 2), 0.0)
    job.start = job.conditionings[0] = cast("Any", object())
    job.release_start()
    assert job.start is job.picture is None
    assert not job.conditionings


def test_what_begins_is_one_call_behind_and_a_call_is_noted(active: ActiveJobs) -> None:
    call = step_cost(MEGAPIXEL, 2)
    first, second = encoded(), encoded()
    active.begin([first])
    active.begin([second])
    assert (first.served, second.served) == (call, 2 * call)
    active.note_served([first], [first.view])
    assert (first.served, second.served) == (2 * call, 2 * call)


def test_only_what_fits_into_a_call_begins(active: ActiveJobs) -> None:
    active.begin([encoded()])
    assert active.admit([make_job(), make_job()]) == [0]


def test_jobs_without_guidance_for_a_while_keep_the_room_of_all_their_rows() -> None:
    active = ActiveJobs(2, lambda _: 2, NO_MIXING)
    begun = [
        encoded(size=ImageSize(64, 64 + 8 * number), guidance_interval=[0.5, 1.0])
        for number in range(4)
    ]
    for job in begun:
        cast("Any", job.denoising).row_count = 1
    active.begin(begun)
    assert active.admit([make_job()]) == []


def test_the_least_served_is_passed_over_a_few_times_for_loras_that_are_at_hand() -> None:
    mixing = LoraMixing(max_sets=1, is_at_hand=lambda loras: loras != INK)
    active = ActiveJobs(2, lambda _: 2, mixing)
    plain, inked = encoded(), encoded()
    inked.spec = replace(inked.spec, passes=(replace(inked.current, loras=LoraSets(INK, ())),))
    active.begin([plain, inked])
    plain.served, inked.served = 1.0, 0.0
    groups = [active.choose_group() for _ in range(MAX_CALLS_PASSED_OVER + 2)]
    assert groups == [*[[plain]] * MAX_CALLS_PASSED_OVER, [inked], [plain]]


def test_cancelled_and_late_jobs_are_removed_and_returned(active: ActiveJobs) -> None:
    stays, cancelled, late = encoded(), encoded(), encoded(time_limit_s=-1)
    active.begin([stays, cancelled, late])
    cancelled.future.cancel()
    assert active.drop_cancelled_and_late() == [cancelled, late]
    assert [*active] == [stays]
    assert cancelled not in active


def test_jobs_may_be_removed_while_they_are_iterated(active: ActiveJobs) -> None:
    jobs = [encoded(), encoded(), encoded()]
    active.begin(jobs)
    for job in active:
        active.remove(job)
    assert not active


def test_load_is_the_number_of_jobs_and_their_work_until_they_are_drained(
    active: ActiveJobs,
) -> None:
    jobs = [make_job(steps=3), make_job(steps=5)]
    active.begin(jobs)
    load = active.load()
    assert load.jobs == 2
    assert load.work == jobs[0].shared_work(MAX_ROWS).plus(jobs[1].shared_work(MAX_ROWS))
    assert active.drain() == jobs
    assert active.load().jobs == 0


def test_a_job_that_begins_its_next_pass_is_served_like_one_that_begins(
    active: ActiveJobs,
) -> None:
    ahead, others = make_job(), [make_job() for _ in range(2)]
    active.begin([ahead, *others])
    one_call = 2.0  # megapixels: two rows of one
    for job, served in zip((ahead, *others), (63.0, 10.0, 12.0), strict=True):
        job.served = served
    active.begin_pass(ahead)
    assert ahead.served == 10.0 + one_call
    behind = others[0]
    behind.served = 1.0
    active.begin_pass(behind)
    assert behind.served == 12.0 + one_call


def test_a_job_that_begins_is_measured_by_all_that_have_begun(active: ActiveJobs) -> None:
    """One between its passes is not stepped, and is not to be overtaken by all that come."""
    between = make_job()
    active.begin([between])
    between.served = 63.0
    newcomer = make_job()
    active.begin([newcomer])
    assert newcomer.served == 63.0 + 2.0


def between_passes(size: ImageSize) -> Job:
    """A job whose first pass is done, and whose second has this size."""
    job = encoded(is_done=True)
    job.spec = replace(job.spec, passes=(job.current, make_job(size).current))
    return job


def test_a_next_pass_begins_as_one_call_has_rows_for_it() -> None:
    active, large = ActiveJobs(MAX_ROWS, lambda _: 4, NO_MIXING), ImageSize(2000, 2000)
    waiting, other = between_passes(large), encoded(size=large)
    active.begin([waiting])
    assert active.has_room_for_pass(waiting)
    active.begin([other])
    assert active.has_room_for_pass(waiting)  # two rows and two
    active.begin([encoded(size=large)])
    assert not active.has_room_for_pass(waiting)
    active.remove(other)
    assert active.has_room_for_pass(waiting)


def test_jobs_between_passes_of_one_size_do_not_wait_for_each_other() -> None:
    active = ActiveJobs(MAX_ROWS, lambda _: 2, NO_MIXING)
    waiting = [between_passes(MEGAPIXEL) for _ in range(2)]
    active.begin(waiting)
    assert all(map(active.has_room_for_pass, waiting))
