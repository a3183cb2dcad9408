"""Work is linear in the text, whatever is nested in it; benchmarks/prompt_parsing.py times it."""

import contextlib
import sys
import time

import pytest

from benchmarks.readers import PROMPT_PATTERNS, SCHEDULE_PATTERNS, UNLIMITED, Pattern
from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import PromptStyle, Steps, parse, parse_schedule

pytestmark = pytest.mark.thorough

# lpw's grammar is a1111's with less to look for, and plain has nothing to do.
STYLES = [PromptStyle.A1111, PromptStyle.COMFY]
STEPS = Steps(30)

patterns = pytest.mark.parametrize(
    "pattern",
    [Pattern("(a:", *halves) for halves in PROMPT_PATTERNS.values()],
    ids=PROMPT_PATTERNS.keys(),
)
schedule_patterns = pytest.mark.parametrize(
    "pattern",
    [Pattern("", *halves) for halves in (PROMPT_PATTERNS | SCHEDULE_PATTERNS).values()],
    ids=(PROMPT_PATTERNS | SCHEDULE_PATTERNS).keys(),
)


@pytest.mark.parametrize("style", STYLES)
@patterns
def test_twice_the_text_is_at_most_twice_the_lines_of_code_run(pattern, style):
    # Far beyond the 64 brackets up to which each span multiplies its own factors.
    small, large = (_lines_run(pattern.text(size), style) for size in (4_000, 8_000))
    assert large <= 2.05 * small + 100


@pytest.mark.parametrize("style", STYLES)
@patterns
def test_what_runs_inside_a_line_is_not_quadratic_either(pattern, style):
    # A quadratic regular expression or slice: 16 times the text would take 256 times as long. The
    # floor keeps a fast pattern from being judged by the clock's noise.
    small, large = (pattern.text(size) for size in (2_500, 40_000))
    allowed = 80 * max(_seconds(small, style), 0.005)
    assert any(_seconds(large, style) < allowed for _ in range(2))


@schedule_patterns
def test_twice_the_text_by_step_is_at_most_twice_the_lines_of_code_run(pattern):
    small, large = (_lines_run(pattern.text(size), STEPS) for size in (4_000, 8_000))
    assert large <= 2.05 * small + 100


@schedule_patterns
def test_what_runs_inside_a_line_of_schedules_is_not_quadratic_either(pattern):
    small, large = (pattern.text(size) for size in (2_500, 40_000))
    allowed = 80 * max(_seconds(small, STEPS), 0.005)
    assert any(_seconds(large, STEPS) < allowed for _ in range(2))


LONG_TAGS = {
    "name": ("a", ""),
    "words": ("a ", ""),
    "blanks": (" ", ""),
    "blanks after the name": (" ", "a"),
    "digits": ("1", "a:"),
    "blanks before a number": (" ", "a:"),
    "blanks after a number": (" ", "a:1"),
    "blanks before a key": (" ", "a:1:"),
    "blanks after a key": (" ", "a:unet"),
    "parts": (":1", "a"),
    "named parts": (":te=1", "a"),
    "named parts that are refused": (":x=1", "a"),
    "tags in a tag": ("<lora:", ""),
    "signs of equality": ("=", "a:te"),
}


@pytest.mark.parametrize("end", ["", ">", "<"])
@pytest.mark.parametrize(("piece", "before"), LONG_TAGS.values(), ids=LONG_TAGS.keys())
@pytest.mark.parametrize("tag_count", [1, 50])
def test_long_tags_take_linear_time(piece, before, end, tag_count):
    def text(size):
        return ("<lora:" + before + piece * (size // len(piece) // tag_count) + end) * tag_count

    style = PromptStyle.A1111
    small, large = text(10_000), text(160_000)
    allowed = 80 * max(_seconds(small, style), 0.002)
    assert any(_seconds(large, style) < allowed for _ in range(2))


def _lines_run(text, style):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        _parse(text, style)
    finally:
        sys.settrace(before)
    return count


def _seconds(text, style):
    start = time.perf_counter()
    _parse(text, style)
    return time.perf_counter() - start


def _parse(text, style):
    # Infinity times zero, deep in a nest, is no weight; it was multiplied all the same.
    with contextlib.suppress(InvalidPromptError):
        if isinstance(style, Steps):
            parse_schedule(text, style, UNLIMITED, style=PromptStyle.A1111)
        else:
            parse(text, UNLIMITED, style=style)
