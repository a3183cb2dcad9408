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
    """Make garbage collections after a lack of memory skip all that is imported."""
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
        (raises(ValueError("the word DefaultCPUAllocator in another text")), Fault.OTHER),
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
def test_errors_are_classified(run: Callable[[], None], fault: Fault) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - all kinds
        run()
    assert classify(caught.value) is fault


@dataclass
class Recorder:
    """A stand-in for the loop that records what an Isolation does."""

    failed: dict[Job, LpwSdxlError] = field(default_factory=dict)
    lacks: int = 0
    runs: list[list[Job]] = field(default_factory=list)

    def isolation(self) -> Isolation:
        return Isolation(CPU, self.failed.__setitem__, self.note)

    def note(self) -> None:
        self.lacks += 1

    def work(self, fails: Callable[[Sequence[Job]], Exception | None]) -> Callable[..., None]:
        def run(jobs: Sequence[Job]) -> None:
            self.runs.append(list(jobs))
            if error := fails(jobs):
                raise error

        return run

    def sizes(self) -> list[int]:
        return [len(jobs) for jobs in self.runs]


def test_work_that_succeeds_is_run_once_for_all() -> None:
    recorder, jobs = Recorder(), [make_job() for _ in range(5)]
    recorder.isolation().run_for_all(jobs, recorder.work(lambda _: None))
    assert recorder.runs == [jobs]
    assert not recorder.failed
    assert recorder.lacks == 0


def test_a_lack_of_memory_halves_the_work_until_it_fits() -> None:
    recorder, jobs = Recorder(), [make_job() for _ in range(8)]
    recorder.isolation().run_for_all(
        jobs, recorder.work(lambda some: MemoryError() if len(some) > 2 else None)
    )
    assert recorder.sizes() == [8, 4, 2, 2, 4, 2, 2]
    assert not recorder.failed
    assert recorder.lacks == 3


def test_another_error_is_tried_again_for_each_alone() -> None:
    recorder, jobs = Recorder(), [make_job() for _ in range(4)]
    faulty = jobs[2]
    recorder.isolation().run_for_all(
        jobs, recorder.work(lambda some: RuntimeError("odd") if faulty in some else None)
    )
    assert recorder.sizes() == [4, 1, 1, 1, 1]
    assert list(recorder.failed) == [faulty]
    assert type(recorder.failed[faulty]) is GenerationError
    assert "odd" not in str(recorder.failed[faulty])  # a foreign error's words are for the log
    assert recorder.lacks == 0


def test_only_jobs_that_lack_memory_alone_fail() -> None:
    recorder, jobs = Recorder(), [make_job() for _ in range(7)]
    large = {jobs[1], jobs[6]}
    recorder.isolation().run_for_all(
        jobs, recorder.work(lambda some: NO_CUDA_MEMORY if large & set(some) else None)
    )
    assert set(recorder.failed) == large
    assert all(type(error) is OutOfMemoryError for error in recorder.failed.values())
    alone = {some[0] for some in recorder.runs if len(some) == 1}
    done = {job for some in recorder.runs if not large & set(some) for job in some}
    assert done == set(jobs) - large
    assert large <= alone


def test_an_error_of_ours_is_passed_on_as_it_is() -> None:
    recorder, job = Recorder(), make_job()
    error = InvalidPromptError("no", field="prompt")
    recorder.isolation().run_for_one(job, raises(error))
    assert recorder.failed == {job: error}


def test_a_job_that_lacks_memory_alone_has_a_last_resort() -> None:
    recorder, jobs = Recorder(), [make_job(), make_job()]
    last = Recorder()
    recorder.isolation().run_for_all(
        jobs,
        recorder.work(lambda some: MemoryError() if jobs[0] in some else None),
        last_resort=last.work(lambda _: None),
    )
    assert last.runs == [[jobs[0]]]
    assert not recorder.failed


def test_a_last_resort_is_tried_once_and_for_a_lack_of_memory_only() -> None:
    recorder, job, last = Recorder(), make_job(), Recorder()
    recorder.isolation().run_for_all(
        [job], recorder.work(lambda _: MemoryError()), last.work(lambda _: MemoryError())
    )
    assert last.sizes() == [1]
    assert type(recorder.failed[job]) is OutOfMemoryError
    recorder, last = Recorder(), Recorder()
    recorder.isolation().run_for_all(
        [job], recorder.work(lambda _: KeyError()), last.work(lambda _: None)
    )
    assert last.sizes() == []
    assert job in recorder.failed


def test_a_lost_device_fails_no_job_here_and_is_raised() -> None:
    recorder, jobs = Recorder(), [make_job(), make_job()]
    lost = torch.AcceleratorError("CUDA error: unspecified launch failure")
    with pytest.raises(DeviceLostError):
        recorder.isolation().run_for_all(jobs, recorder.work(lambda _: lost))
    assert not recorder.failed
    assert recorder.sizes() == [2]


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

    recorder, jobs = Recorder(), [make_job() for _ in range(4)]
    recorder.isolation().run_for_all(jobs, work, last_resort=work)
    assert len(held) >= 5
    assert were_alive
    assert not any(were_alive)
    assert not any(reference() is not None for reference in held)
    assert set(recorder.failed) == set(jobs)
    for error in recorder.failed.values():
        assert error.__traceback__ is None
        assert error.__context__ is None
        assert error.__cause__ is None


def test_what_went_wrong_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    recorder.isolation().run_for_one(make_job(), wrong_shapes)
    assert "wrong_shapes" in caplog.text
    caplog.clear()
    recorder.isolation().run_for_one(make_job(), too_large_a_list)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None  # a traceback in a handler's hands would keep the tensors
