from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lpw_sdxl.engine.watchdog import Pulse, Watchdog

LOOK_S = 0.01
STALL_S = 0.1


class Worker:
    """A thread that does what it is told until it is let go."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.may_end = threading.Event()
        self.thread = threading.Thread(target=self._hang_in_here, daemon=True)
        self.alarms: list[str] = []
        self.rang = threading.Event()
        self.watchdog = Watchdog(self.thread, self.pulse, STALL_S, self._ring, LOOK_S)

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
    """Whether nothing rings in a while, in which something is done again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        do()
        if worker.rang.wait(LOOK_S):
            return False
    return True


def test_a_pulse_tells_how_long_the_work_has_lasted() -> None:
    pulse = Pulse()
    assert pulse.silent_s == 0.0
    pulse.beat()
    time.sleep(0.02)
    assert 0.02 <= pulse.silent_s < 5
    pulse.rest()
    assert pulse.silent_s == 0.0


def test_a_thread_that_ends_is_told_once(worker: Worker) -> None:
    worker.end()
    assert worker.rang.wait(10)
    time.sleep(5 * LOOK_S)
    assert worker.alarms == ["the engine's thread has ended"]


def test_a_thread_that_stalls_is_told_once_with_the_place_in_the_log(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.pulse.beat()
    assert worker.rang.wait(10)
    time.sleep(5 * LOOK_S)
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
    assert quiet(worker, 5 * LOOK_S)


def test_an_end_that_was_asked_for_while_it_looked_is_no_alarm() -> None:
    worker = Worker()

    class LateLook(threading.Event):
        """Off from the moment that the watchdog has found it on."""

        def wait(self, timeout: float | None = None) -> bool:
            was_set = super().wait(timeout)
            self.set()
            return was_set

    worker.watchdog._is_off = LateLook()
    worker.thread.start()
    worker.end()
    worker.watchdog.start()
    worker.watchdog._thread.join(10)
    assert worker.alarms == []
