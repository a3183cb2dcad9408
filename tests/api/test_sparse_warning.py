from __future__ import annotations

import asyncio
import logging
import time

import pytest

from lpw_sdxl.api.sparse_warning import SparseWarning, SparseWarningFilter


async def test_a_thousand_of_a_kind_are_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    warning = SparseWarning(
        logging.getLogger("lpw_sdxl.test"), "%d came, the last from %s", seconds=0.1
    )
    for number in range(1000):
        warning.add(f"host {number}")
    assert [record.getMessage() for record in caplog.records] == ["1 came, the last from host 0"]
    await asyncio.sleep(0.15)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[1:] == ["999 came, the last from host 999"]
    await asyncio.sleep(0.15)  # nothing came: the timer stops, and the next event is logged at once
    warning.add("host A")
    assert [record.getMessage() for record in caplog.records][2:] == [
        "1 came, the last from host A"
    ]


def test_warnings_of_the_same_words_are_told_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("lpw_sdxl.test.sparing")
    logger.addFilter(SparseWarningFilter(seconds=0.1))
    for number in range(100):
        logger.warning("bad request %d", number)
        logger.warning("another")
    logger.error("bad request %d", 5)
    assert [record.getMessage() for record in caplog.records] == [
        *("bad request 0", "another", "bad request 5"),
    ]
    time.sleep(0.11)
    logger.warning("bad request %d", 100)
    assert caplog.records[-1].getMessage() == "bad request 100 (99 more before)"
