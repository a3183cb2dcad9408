"""No reader's time grows faster than the text: a short twin of benchmarks/growth.py.

From n to eight times n a linear reader's time grows eightfold and a quadratic one's 64-fold. The
bar lies between, and CPU time counts, so a busy machine fails nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from benchmarks.readers import Pattern, Reader, all_readers
from lpw_sdxl.errors import LpwSdxlError

SHORT, TIMES = 500, 8  # characters
LARGEST_GROWTH = 24.0
ATTEMPTS = 4
NO_TIME_S = 0.003
"""Of the longer text; below it the clock and the first call count more than the reading."""

READERS = {reader.name: reader for reader in all_readers()}


def read_s(read: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    with suppress(LpwSdxlError, RecursionError):
        read(text)
    return time.process_time() - start


def grows_too_fast(read: Callable[[str], object], pattern: Pattern) -> bool:
    """Whether the smallest of several times says so; what is quick once is not measured again."""
    short, long = pattern.text(SHORT), pattern.text(SHORT * TIMES)
    shorter = longer = float("inf")
    for _ in range(ATTEMPTS):
        longer = min(longer, read_s(read, long))
        if longer < NO_TIME_S:
            return False
        shorter = min(shorter, read_s(read, short))
        if longer < LARGEST_GROWTH * shorter:
            return False
    return True


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_no_reader_grows_faster_than_its_text(reader: Reader) -> None:
    slow = [
        name for name, pattern in reader.patterns.items() if grows_too_fast(reader.read, pattern)
    ]
    assert not slow


def test_there_are_over_a_hundred_patterns() -> None:
    patterns = {one for reader in READERS.values() for one in reader.patterns.values()}
    assert len(patterns) > 100


def test_a_quadratic_match_is_found() -> None:
    """As the one on Content-Type was."""
    pattern = re.compile(r"application/json\s*\s*;")
    blanks = Pattern("application/json", " ")
    assert grows_too_fast(pattern.fullmatch, blanks)
