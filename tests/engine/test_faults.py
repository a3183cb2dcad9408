from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch

from jobs import make_job
from lpw_sdxl.engine.faults import DeviceLostError, Fault, Isolation, classify
from lpw_sdxl.engine.job import Job
from lpw_sdxl.errors import GenerationError, InvalidPromptError, LpwSdxlError, OutOfMemoryError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Spare the collections that a lack of memory brings all that is imported."""
    gc.freeze()
    yield
    gc.unfreeze()


def too_large_a_tensor() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def too_large_a_list() -> None:
    [0] * 2**60


def wrong_shapes() -> None:
    torch.zeros(2, 3) @ torch.zeros(2, 3)


def diverges() -> None:
    raise GenerationError("the image diverged")


def raises(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


NO_CUDA_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (too_large_a_tensor, Fault.OUT_OF_MEMORY),
        (too_large_a_list, Fault.OUT_OF_MEMORY),
        (raises(NO_CUDA_MEMORY), Fault.OUT_OF_MEMORY),
        (raises(torch.AcceleratorError("CUDA error: out of memory")), Fault.OUT_OF_MEMORY),
        (
            raises(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling create")),
            Fault.OUT_OF_MEMORY,
        ),
        (
            raises(torch.AcceleratorError("CUDA error: an illegal memory access")),
            Fault.DEVICE_LOST,
        ),
        (wrong_shapes, Fault.OTHER),
        (raises(ValueError("the word DefaultCPUAllocator in somebody's text")), Fault.OTHER),
        (diverges, Fault.OTHER),
    ],
    ids=[
        "CPU tensor",
        "Python object",
        "CUDA tensor",
        "CUDA itself",
        "cuBLAS",
        "broken context",
        "programming error",
        "mere words",
        "one of ours",
    ],
)
def test_errors_are_told_apart(run: Callable[[], None], fault: Fault) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - all kinds
        run()
    assert classify(caught.value) is fault


@dataclass
class Desk:
    """What the loop does for an Isolation, written down."""

    failed: dict[Job, LpwSdxlError] = field(default_factory=dict)
    lacks: int = 0
    asked: list[list[Job]] = field(default_factory=list)

    def isolation(self) -> Isolation:
        return Isolation(CPU, self.failed.__setitem__, self.note)

    def note(self) -> None:
        self.lacks += 1

    def work(self, fails: Callable[[Sequence[Job]], Exception | None]) -> Callable[..., None]:
        def run(jobs: Sequence[Job]) -> None:
            self.asked.append(list(jobs))
            if error := fails(jobs):
                raise error

        return run

    def sizes(self) -> list[int]:
        return [len(jobs) for jobs in self.asked]


def test_work_that_goes_well_is_done_once_for_all() -> None:
    desk, jobs = Desk(), [make_job() for _ in range(5)]
    desk.isolation().together(jobs, desk.work(lambda _: None))
    assert desk.asked == [jobs]
    assert not desk.failed
    assert desk.lacks == 0


def test_a_lack_of_memory_halves_the_work_until_it_fits() -> None:
    desk, jobs = Desk(), [make_job() for _ in range(8)]
    desk.isolation().together(
        jobs, desk.work(lambda some: MemoryError() if len(some) > 2 else None)
    )
    assert desk.sizes() == [8, 4, 2, 2, 4, 2, 2]
    assert not desk.failed
    assert desk.lacks == 3


def test_another_error_is_tried_again_for_each_alone() -> None:
    desk, jobs = Desk(), [make_job() for _ in range(4)]
    guilty = jobs[2]
    desk.isolation().together(
        jobs, desk.work(lambda some: RuntimeError("odd") if guilty in some else None)
    )
    assert desk.sizes() == [4, 1, 1, 1, 1]
    assert list(desk.failed) == [guilty]
    assert type(desk.failed[guilty]) is GenerationError
    assert "odd" not in str(desk.failed[guilty])  # a foreign error's words are for the log
    assert desk.lacks == 0


def test_exactly_those_fail_who_lack_memory_alone() -> None:
    desk, jobs = Desk(), [make_job() for _ in range(7)]
    large = {jobs[1], jobs[6]}
    desk.isolation().together(
        jobs, desk.work(lambda some: NO_CUDA_MEMORY if large & set(some) else None)
    )
    assert set(desk.failed) == large
    assert all(type(error) is OutOfMemoryError for error in desk.failed.values())
    alone = {some[0] for some in desk.asked if len(some) == 1}
    done = {job for some in desk.asked if not large & set(some) for job in some}
    assert done == set(jobs) - large
    assert large <= alone


def test_an_error_of_ours_is_told_as_it_is() -> None:
    desk, job = Desk(), make_job()
    error = InvalidPromptError("no", field="prompt")
    desk.isolation().alone(job, raises(error))
    assert desk.failed == {job: error}


def test_who_lacks_memory_alone_has_a_last_resort() -> None:
    desk, jobs = Desk(), [make_job(), make_job()]
    last = Desk()
    desk.isolation().together(
        jobs,
        desk.work(lambda some: MemoryError() if jobs[0] in some else None),
        last_resort=last.work(lambda _: None),
    )
    assert last.asked == [[jobs[0]]]
    assert not desk.failed


def test_a_last_resort_is_tried_once_and_for_a_lack_of_memory_only() -> None:
    desk, job, last = Desk(), make_job(), Desk()
    desk.isolation().together(
        [job], desk.work(lambda _: MemoryError()), last.work(lambda _: MemoryError())
    )
    assert last.sizes() == [1]
    assert type(desk.failed[job]) is OutOfMemoryError
    desk, last = Desk(), Desk()
    desk.isolation().together([job], desk.work(lambda _: KeyError()), last.work(lambda _: None))
    assert last.sizes() == []
    assert job in desk.failed


def test_a_lost_device_fails_nobody_here_and_is_told() -> None:
    desk, jobs = Desk(), [make_job(), make_job()]
    lost = torch.AcceleratorError("CUDA error: unspecified launch failure")
    with pytest.raises(DeviceLostError):
        desk.isolation().together(jobs, desk.work(lambda _: lost))
    assert not desk.failed
    assert desk.sizes() == [2]


@pytest.mark.parametrize("fail", [too_large_a_tensor, too_large_a_list, diverges])
def test_tensors_of_a_failing_frame_are_gone_before_the_next_try(
    fail: Callable[[], None],
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    were_alive: list[bool] = []

    def work(jobs: Sequence[Job]) -> None:
        were_alive.extend(reference() is not None for reference in held)
        tensor = torch.zeros(1000)
        held.append(weakref.ref(tensor))
        try:
            fail()
        except Exception as error:
            raise type(error)(*error.args) from error  # a chain of errors holds frames too

    desk, jobs = Desk(), [make_job() for _ in range(4)]
    desk.isolation().together(jobs, work, last_resort=work)
    assert len(held) >= 5
    assert were_alive
    assert not any(were_alive)
    assert not any(reference() is not None for reference in held)
    assert set(desk.failed) == set(jobs)
    for error in desk.failed.values():
        assert error.__traceback__ is None
        assert error.__context__ is None
        assert error.__cause__ is None


def test_what_went_wrong_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.isolation().alone(make_job(), wrong_shapes)
    assert "wrong_shapes" in caplog.text
    caplog.clear()
    desk.isolation().alone(make_job(), too_large_a_list)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None  # a traceback in a handler's hands would keep the tensors
