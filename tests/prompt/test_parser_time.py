"""Time is linear in the text, whatever is nested in it."""

import contextlib
import math
import time

import pytest

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import PromptLimits, parse

SMALL = 2_500
GROWTH = 8
UNLIMITED = PromptLimits(max_characters=10**9, max_depth=10**9, max_weight=math.inf)

# Each pattern is repeated; a quadratic parser takes 64 times as long for 8 times the text.
PATTERNS = {
    "openings": lambda n: "(" * n,
    "unclosed text": lambda n: "(a[b" * n,
    "nest": lambda n: "(" * n + "a" + ")" * n,
    "text at each depth": lambda n: "(a" * n + "b)" * n,
    "weights at each depth": lambda n: "(a" * n + "b:.99)" * n,
    "crossing": lambda n: "([a" * n + ")" * n + "]" * n,
    "closings": lambda n: ")" * n,
    "blanks": lambda n: " " * n,
    "breaks": lambda n: " BREAK" * n,
    "colons": lambda n: ":1" * n,
    "one number": lambda n: "(a:" + "1" * n,
    "lora beginnings": lambda n: "<lora:" * n,
    "lora names": lambda n: "<lora:a:" * n,
    "backslashes": lambda n: "\\" * (2 * n + 1),
}


@pytest.mark.parametrize("make", PATTERNS.values(), ids=PATTERNS.keys())
def test_time_grows_with_the_text_and_not_its_square(make):
    small, large = make(SMALL), make(SMALL * GROWTH)
    # The floor keeps a fast pattern from being judged by the clock's noise.
    allowed = 4 * GROWTH * max(_seconds(small), 0.005)
    assert min(_seconds(large) for _ in range(2)) < allowed


def test_nest_of_200_000_characters_is_parsed_in_seconds():
    assert _seconds("(" * 100_000 + "a" + ")" * 100_000) < 20


def _seconds(text):
    start = time.perf_counter()
    # Infinity times zero, deep in a nest, is no weight; it was multiplied all the same.
    with contextlib.suppress(InvalidPromptError):
        parse(text, UNLIMITED)
    return time.perf_counter() - start
