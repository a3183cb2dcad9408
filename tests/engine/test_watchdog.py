from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lpw_sdxl.engine.watchdog import Pulse, Watchdog

CHECK_S = 0.01
STALL_S = 0.1


class Worker:
    """A thread that hangs until it may end, and its watchdog."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.may_end = threading.Event()
        self.thread = threading.Thread(target=self._hang_in_here, daemon=True)
        self.alarms: list[str] = []
        self.rang = threading.Event()
        self.watchdog = Watchdog(self.thread, self.pulse, STALL_S, self._ring, CHECK_S)

    def _ring(self, reason: str) -> None:
        self.alarms.append(reason)
        self.rang.set()

    def _hang_in_here(self) -> None:
        self.may_end.wait()

    def start(self) -> None:
        self.thread.start()
        self.watchdog.start()

    def end(self) -> None:
        self.may_end.set()
        self.thread.join()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    worker.start()
    yield worker
    worker.watchdog.stop()
    worker.end()
    worker.watchdog._thread.join(10)
    assert not worker.watchdog._thread.is_alive()


def quiet(worker: Worker, seconds: float, do: Callable[[], None] = lambda: None) -> bool:
    """Return whether there is no alarm for so many seconds, in which `do` is called repeatedly."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        do()
        if worker.rang.wait(CHECK_S):
            return False
    return True


def test_a_pulse_measures_how_long_the_work_has_lasted() -> None:
    pulse = Pulse()
    assert pulse.busy_s == 0.0
    pulse.beat()
    time.sleep(0.02)
    assert 0.02 <= pulse.busy_s < 5
    pulse.rest()
    assert pulse.busy_s == 0.0


def test_a_thread_that_ends_raises_one_alarm(worker: Worker) -> None:
    worker.end()
    assert worker.rang.wait(10)
    time.sleep(5 * CHECK_S)
    assert worker.alarms == ["the engine's thread has ended"]


def test_a_thread_that_stalls_raises_one_alarm_with_its_stack_in_the_log(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.pulse.beat()
    assert worker.rang.wait(10)
    time.sleep(5 * CHECK_S)
    [alarm] = worker.alarms
    assert "has not moved" in alarm
    assert "_hang_in_here" in caplog.text


def test_a_resting_thread_is_not_stalled(worker: Worker) -> None:
    worker.pulse.beat()
    worker.pulse.rest()
    assert quiet(worker, 2 * STALL_S)


def test_a_thread_that_moves_is_not_stalled(worker: Worker) -> None:
    assert quiet(worker, 3 * STALL_S, worker.pulse.beat)


def test_after_stop_the_threads_end_is_no_alarm(worker: Worker) -> None:
    worker.watchdog.stop()
    worker.end()
    assert quiet(worker, 5 * CHECK_S)


def test_an_end_that_was_intended_during_a_check_is_no_alarm() -> None:
    worker = Worker()

    class LateCheck(threading.Event):
        """An event that is set right after the watchdog has found it unset."""

        def wait(self, timeout: float | None = None) -> bool:
            was_set = super().wait(timeout)
            self.set()
            return was_set

    worker.watchdog._is_off = LateCheck()
    worker.thread.start()
    worker.end()
    worker.watchdog.start()
    worker.watchdog._thread.join(10)
    assert worker.alarms == []
