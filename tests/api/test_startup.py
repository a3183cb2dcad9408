"""A start's phases, and what the border may use in each."""

from __future__ import annotations

import threading

import pytest

from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.startup import Phase, Startup
from lpw_sdxl.errors import ModelError, StartingError, UnavailableError

PATIENCE_S = 10


class Loading:
    """A loading that ends when the test says so."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.go_on = threading.Event()
        self.failures: list[BaseException] = []
        self.threads: list[threading.Thread] = []
        self._error = error
        self.startup = Startup(self._load, self.failures.append)

    def _load(self) -> str:
        self.threads.append(threading.current_thread())
        assert self.go_on.wait(PATIENCE_S)
        if self._error is not None:
            raise self._error
        return "engine"

    def end(self) -> None:
        self.go_on.set()
        assert self.startup.wait(PATIENCE_S)
        self.threads[0].join(PATIENCE_S)


def test_it_loads_in_a_thread_and_has_nothing_until_then() -> None:
    loading = Loading()
    startup = loading.startup
    startup.begin()
    assert startup.phase is Phase.STARTING
    assert startup.found is None
    assert not startup.wait(0.01)
    with pytest.raises(StartingError, match="still being loaded"):
        _ = startup.loaded
    assert isinstance(startup.obstacle, StartingError)
    loading.end()
    assert loading.threads != [threading.current_thread()]
    assert startup.phase is Phase.READY
    assert startup.loaded == startup.found == "engine"
    assert startup.obstacle is None
    assert loading.failures == []


def test_a_failure_is_reported_once_and_nothing_is_served_after_it() -> None:
    error = ModelError("damaged")
    loading = Loading(error)
    loading.startup.begin()
    loading.end()
    assert loading.failures == [error]
    assert loading.startup.phase is Phase.FAILED
    with pytest.raises(UnavailableError, match="the server is stopping"):
        _ = loading.startup.loaded
    assert not isinstance(loading.startup.obstacle, StartingError)
    loading.startup.leave()
    assert loading.startup.phase is Phase.FAILED


def test_even_an_exit_is_a_failure() -> None:
    loading = Loading(SystemExit(3))
    loading.startup.begin()
    loading.end()
    assert loading.startup.phase is Phase.FAILED
    assert [type(one) for one in loading.failures] == [SystemExit]


def test_what_is_loaded_stays_usable_while_the_worker_leaves() -> None:
    loading = Loading()
    loading.startup.begin()
    loading.end()
    loading.startup.leave()
    assert loading.startup.phase is Phase.LEAVING
    assert loading.startup.loaded == "engine"
    assert loading.startup.obstacle is None


@pytest.mark.parametrize("error", [None, ModelError("damaged")], ids=["loads", "fails"])
def test_a_worker_that_leaves_first_is_not_ready_and_reports_nothing(
    error: Exception | None,
) -> None:
    loading = Loading(error)
    loading.startup.begin()
    loading.startup.leave()
    with pytest.raises(UnavailableError) as raised:
        _ = loading.startup.loaded
    assert not isinstance(raised.value, StartingError)
    loading.end()
    assert loading.startup.phase is (Phase.LEAVING if error is None else Phase.FAILED)
    assert loading.startup.found == ("engine" if error is None else None)
    assert loading.failures == []


def test_a_failure_that_takes_its_time_keeps_nobody_waiting() -> None:
    go_on = threading.Event()

    def fail() -> None:
        raise ModelError("damaged")

    startup = Startup(fail, lambda _: go_on.wait(PATIENCE_S))
    startup.begin()
    assert startup.wait(PATIENCE_S)
    assert not go_on.is_set()
    go_on.set()


def test_clients_are_asked_to_come_back_in_seconds() -> None:
    answer = ErrorAnswer.from_error(StartingError("soon"))
    assert (answer.status, answer.code, answer.message) == (503, "starting", "soon")
    assert answer.headers == {"retry-after": "3"}
