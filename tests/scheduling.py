"""Which tests run in one worker of pytest-xdist, and which run first."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

SHARED_SERVER = "plain_server"


class SharingScheduling(LoadFileScheduling):
    """Gives each worker whole files, and all files that ask the shared server to one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        text = (Path(self.config.rootpath) / file).read_text(encoding="utf-8")
        return SHARED_SERVER if SHARED_SERVER in text else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> SharingScheduling | None:
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # files come in the order of the collection
    return SharingScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files whose tests start processes first: they take longest, and wait most of it.

    What is left for the end is short, so that all workers end together.
    """
    starting = {item.path for item in items if item.get_closest_marker("processes")}
    items.sort(key=lambda item: item.path not in starting)
