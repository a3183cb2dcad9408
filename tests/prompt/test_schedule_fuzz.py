"""Whatever is typed, a schedule is what the rules make of it. LPW_TEST_SEED=N repeats a run."""

import os
import random
import secrets
from itertools import pairwise

import pytest

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import (
    PromptField,
    PromptLimits,
    PromptStyle,
    Steps,
    parse,
    parse_schedule,
)
from prompt_strategies import PIECES
from schedule_rules import expected_parts

WIDE = PromptLimits(max_depth=10**9, max_weight=1e308, max_variants=10**9, max_parts=10**9)
NUMBERS = [
    "1", "3", "0", "10", ".5", "0.25", "1.", "1.5", "2.5", "-1", "+4", "1e1", "1e-1", ".1e1", " 3 ",
    "1.2.3", "\n5\t", "", "1e999", "-1e999", "9" * 400, "٣", "²", "a",
]  # fmt: skip
WORDS = [
    "a",
    "b",
    "cat ",
    " dog",
    "",
    " ",
    "猫",
    ",",
    "1",
    "BREAK",
    " BREAK ",
    "\n",
    "#",
    "&",
    "\\",
]
MARKS = ["[", "]", "(", ")", ":", "|", "\\[", "\\]", "\\(", "\\|", "\\:", "\\\\", "\\a"]
TAGS = ["<lora:x:1>", "<lora:", ">", "<lyco:[a|b]>", "<hypernet:y:1>", "<lo", "ra:x:1>"]
PARTS = [" AND ", "AND", " AND\n", " :0.5", ":2 ", " : -1", "# c\n", "\n#", "# ", "A", "ND"]


def construct(rng, depth):
    """A text that is mostly well formed, with edits and alternations in each other."""
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(WORDS[:9])
    inside = [construct(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    number = rng.choice(NUMBERS[:18])
    return rng.choice(
        [
            lambda: "".join(inside),
            lambda: f"[{'|'.join([*inside, 'x'])}]",
            lambda: f"[{inside[0]}:{inside[-1]}:{number}]",
            lambda: f"[{inside[0]}:{number}]",
            lambda: f"[{inside[0]}::{number}]",
            lambda: f"({''.join(inside)})",
            lambda: f"({inside[0]}:{rng.choice(['1.2', '.5', 'b', ' 2 '])})",
            lambda: f"[{inside[0]}]",
        ]
    )()


def text_of(rng):
    """Well formed, of marks without order, or one within the other."""
    pool = rng.choice(
        [MARKS + WORDS, MARKS + WORDS + NUMBERS, MARKS + PARTS + TAGS + WORDS, PIECES]
    )
    pieces = [
        construct(rng, rng.randint(0, 4)) if rng.random() < 0.4 else rng.choice(pool)
        for _ in range(rng.randint(0, 12))
    ]
    if rng.random() < 0.3:
        pieces = [construct(rng, 4) for _ in range(rng.randint(1, 4))]
    return "".join(pieces)


def check(rng, text):
    """Hold one schedule against the rules and its promises; return the number of its texts."""
    count, before = rng.choice([(1, None), (4, None), (10, None), (20, None), (6, 10), (20, 7)])
    style = rng.choice([PromptStyle.A1111, PromptStyle.A1111_ORIGINAL])
    field = rng.choice(list(PromptField))
    try:
        schedule = parse_schedule(text, Steps(count, before), WIDE, style=style, field=field)
    except InvalidPromptError:
        return 0  # half of a surrogate pair, or a weight of 400 digits
    read = [
        (part.weight, [(span.until_step, span.variant.text) for span in part.spans])
        for part in schedule.parts
    ]
    assert read == expected_parts(text, count, before, has_parts=field.has_parts)
    assert all(part.spans[-1].until_step == count for part in schedule.parts)
    stages = list(schedule.stages())
    assert stages[-1].until_step == count
    assert all(len(stage.parts) == len(schedule.parts) for stage in stages)
    for variant in schedule.variants:
        check_places(text, variant)
        alone = parse(variant.text, WIDE, style=style)
        if not (alone.lora_tags or alone.refused_tags):
            assert variant.prompt == alone
    return len(schedule.variants)


def check_places(text, variant):
    """Read a text, and each character of its spans, out of the prompt as it was written."""
    runs = variant.excerpt.runs
    assert "".join(text[run.start : run.end] for run in runs) == variant.text
    assert all(one.end <= other.start for one, other in pairwise(runs))
    characters = "".join(span.text for span in variant.prompt.spans)
    extents = variant.prompt.extents()
    assert [text[end - 1] for _, end in extents] == list(characters)
    ends = [0]
    for node in variant.prompt.nodes:
        assert ends[-1] <= node.start < node.end <= len(text)
        ends.append(node.end)
    assert all(0 <= warning.position < len(text) for warning in variant.prompt.warnings)


def fuzz(count):
    seed = int(os.environ.get("LPW_TEST_SEED") or secrets.randbits(32))
    print(f"LPW_TEST_SEED={seed}")  # noqa: T201 - pytest -s shows it, and any failure
    texts = changing = 0
    for index in range(count):
        rng = random.Random(seed * 1_000_003 + index)
        text = text_of(rng)
        try:
            found = check(rng, text)
        except Exception as error:  # whatever it is, the string that did it is named
            raise AssertionError(f"LPW_TEST_SEED={seed}, string {index}: {text!r}") from error
        texts += found > 0
        changing += found > 1
    assert texts > 0.9 * count
    assert changing > 0.15 * count  # else little would be tested


def test_three_thousand_prompts():
    fuzz(3_000)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_one_million_prompts():
    fuzz(1_000_000)


def test_the_rules_notice_a_text_that_is_another():
    assert expected_parts("[a|b] :2", 2, None, has_parts=True) == [(2.0, [(1, "a"), (2, "b")])]
    assert expected_parts("[a|b] :2", 2, None, has_parts=False) == [
        (1.0, [(1, "a :2"), (2, "b :2")])
    ]
