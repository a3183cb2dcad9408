"""Tests that start a process or a server are marked `processes`; no other test can start one.

The mark comes by itself with a fixture that starts one. A module or a test that starts a process of
its own has to say so: without the mark its start is refused, in every run.
"""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

STARTING_FIXTURES = frozenset({"forks", "plain_server"})
STARTING_MARKS = ("bundle", "container", "fuzz")
STARTS = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "subprocess.Popen",
    }
)


class ProcessWatch:
    """Marks what is known to start processes, and refuses the start of any other."""

    def __init__(self) -> None:
        self._unmarked = ""  # the test that runs now, if it has no mark
        sys.addaudithook(self._hear)

    @pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            is_starting = STARTING_FIXTURES & {*getattr(item, "fixturenames", ())}
            if is_starting or any(map(item.get_closest_marker, STARTING_MARKS)):
                item.add_marker("processes")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._unmarked = "" if item.get_closest_marker("processes") else item.nodeid
        try:
            return (yield)
        finally:
            self._unmarked = ""

    def _hear(self, event: str, arguments: object) -> None:
        if event in STARTS and self._unmarked:
            raise RuntimeError(
                f"{self._unmarked} starts a process ({event}); mark it: pytest.mark.processes"
            )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ProcessWatch(), "process-watch")
