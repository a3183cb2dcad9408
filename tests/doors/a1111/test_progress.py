"""A client's jobs in A1111's words: idle is zero, and what is under way goes forward."""

from __future__ import annotations

from typing import Any

import pytest

from lpw_sdxl.doors.a1111.progress import (
    WAITING,
    Activity,
    describe_progress,
    describe_task,
    find_task,
    list_pending,
)
from lpw_sdxl.doors.a1111.task_names import name_job
from lpw_sdxl.engine.tracked_job import JobState, JobStatus


def job(state: JobState = JobState.RUNNING, name: str = "a", **fields: Any) -> JobStatus:
    usual: dict[str, Any] = {"age_s": 10.0, "unet_calls": 20, "steps": 20}
    if state is JobState.RUNNING:
        usual |= {"unet_calls_done": 5, "steps_done": 5, "seconds_left": 6.0}
    if state is JobState.DONE:
        usual |= {"unet_calls_done": 20, "steps_done": 20, "ended_s": 2.0}
    return JobStatus(name, state, **(usual | fields))


@pytest.mark.parametrize(
    "statuses",
    [[], [job(JobState.DONE)], [job(JobState.FAILED, ended_s=1.0)]],
    ids=["nothing", "done", "failed"],
)
def test_without_images_under_way_all_is_zero(statuses: list[JobStatus]) -> None:
    answer = describe_progress(Activity.of(statuses))
    assert answer["progress"] == answer["eta_relative"] == 0
    state = answer["state"]
    assert (state["job"], state["job_count"], state["job_no"]) == ("", 0, 0)
    assert (state["sampling_step"], state["sampling_steps"]) == (0, 0)


def test_one_image_is_shown_as_far_as_it_is() -> None:
    answer = describe_progress(Activity.of([job()]), "a preview")
    assert answer["progress"] == pytest.approx(0.01 + 5 / 20)
    assert answer["eta_relative"] == 6.0
    assert answer["current_image"] == "a preview"
    assert (answer["state"]["sampling_step"], answer["state"]["sampling_steps"]) == (5, 20)
    assert (answer["state"]["job_count"], answer["textinfo"]) == (1, None)


def test_images_that_ended_meanwhile_count_and_older_ones_do_not() -> None:
    old = job(JobState.DONE, ended_s=11.0)
    answer = describe_progress(
        Activity.of([old, job(JobState.DONE), job(), job(JobState.QUEUED, wait_s=3.0, place=0)])
    )
    state = answer["state"]
    assert (state["job"], state["job_count"], state["job_no"]) == ("Batch 2 out of 3", 3, 1)
    assert answer["progress"] == pytest.approx(0.01 + (1 + 5 / 20) / 3)
    assert answer["eta_relative"] == 6.0


def test_progress_goes_forward_and_ends_at_one() -> None:
    shares = []
    for done in (1, 5, 20):
        jobs = [job(JobState.DONE), job(unet_calls_done=done)]
        shares.append(describe_progress(Activity.of(jobs))["progress"])
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_what_waits_is_under_way() -> None:
    queued = describe_progress(Activity.of([job(JobState.QUEUED, place=2, wait_s=4.0)]))
    assert queued["textinfo"] == "In queue: 3/3"
    assert queued["state"]["job_count"] == 1
    assert queued["eta_relative"] == 4.0
    refused = describe_progress(Activity.of([], waiting=2))
    assert refused["textinfo"] == WAITING
    assert refused["state"]["job_count"] == 2
    assert refused["progress"] > 0


def test_a_task_is_found_with_all_its_images() -> None:
    name = name_job("task(abc)")
    jobs = [job(name=one) for one in (f"{name}-0", f"{name}-11", "other", f"{name}-x", name[:-1])]
    assert [one.request_id for one in find_task(jobs, "task(abc)")] == [f"{name}-0", f"{name}-11"]
    assert [one.request_id for one in find_task([job(name="mine")], "mine")] == ["mine"]


def test_a_task_waits_runs_and_is_completed() -> None:
    unknown = describe_task([])
    assert (unknown["active"], unknown["completed"], unknown["textinfo"]) == (False, False, WAITING)
    queued = describe_task([job(JobState.QUEUED, place=0)])
    assert (queued["queued"], queued["textinfo"]) == (True, "In queue: 1/1")
    active = describe_task([job(JobState.DONE), job()], "AAAA", 25)
    assert (active["active"], active["queued"], active["completed"]) == (True, False, False)
    assert active["live_preview"] == "data:image/jpeg;base64,AAAA"
    assert active["id_live_preview"] == 25
    completed = describe_task([job(JobState.DONE)])
    assert (completed["completed"], completed["progress"]) == (True, None)
    assert list_pending([job(), job(JobState.QUEUED, "b")]) == {"size": 1, "tasks": ["b"]}
