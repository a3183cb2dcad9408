"""Whatever is typed, in any style: our error or a sound tree. LPW_TEST_SEED=N repeats a run."""

import math
import os
import random
import secrets
from itertools import pairwise

import pytest

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import (
    DEFAULT_LIMITS,
    Break,
    LoraTag,
    PromptLimits,
    PromptStyle,
    RefusedTag,
    Span,
    parse,
)
from prompt_rendering import render
from prompt_strategies import PIECES

UNLIMITED = PromptLimits(max_characters=10**9, max_depth=10**9, max_weight=1e308)
STYLES = list(PromptStyle)
NEST_CHARACTERS = 100_000
STRINGS_PER_NEST = 4_000  # a nest costs as much as thousands of short strings

NUMBERS = [
    "1.3", "-1", "+.5", "1.", ".", "..", "1..2", "1e5", "1e-5", "inf", "nan", "0", "-0", "9" * 400,
    "0." + "0" * 400 + "1", "1,3", "٣.٣", "\U0001d7d7", "²", "½", "0x1", "1_0", "--1", " 1 ",
    "\n2\t", "",
]  # fmt: skip
UNICODE = [
    "\ud83d", "\udc00", "\udfff\ud800", "🐈", "e\u0301", "\u200b", "\u202e", "\ufeff", "\uffff",
    "\U0010ffff", "猫", "İ", "\u017f", "\u212a", "ﬁ", "\u0300", "\x85", "\u2028", "\u3000", "\xa0",
]  # fmt: skip
CONTROLS = [chr(code) for code in (*range(32), *range(127, 160))]
TAGS = [
    "<lora:x:1>", "<lora:x:", "<lora:", "<lora:(x):.5>", "<lora:x:1..2>", "<lora:\n:1>",
    "<Lora:x:1>", "<lora:x:" + "9" * 400 + ">", "<lora:x:1:2>", "<<lora:x:1>>", "<lora:\\:1>",
    "<hypernet:a:1>", "<lora:x>", "<lyco:x: 1 :-2>", "<lora: x :unet=1:te = .5>", "<lora:x:1:1:1>",
    "<lora:x:te=1:te=1>", "<lora:x:dyn=8>", "<lora:te=1>", "<lora:" + "n" * 129 + ":1>", "<lyco:",
    "<lora:x:1:" + "9" * 400 + ">", "<lora:x:1e1>", "<LORA:x:1000>", "<hypernet:",
    "<lora:x:lbw=1,0>",
]  # fmt: skip
BREAKS = [
    "BREAK", " BREAK ", "\nBREAK\n", "BREAKBREAK", "BREAK BREAK", "Break", "_BREAK", "(BREAK:2)",
]  # fmt: skip
BRACKETS = [
    "(", ")", "[", "]", "()", "[]", ")(", "][", "((", "))", "\\(", "\\)", "\\[", "\\\\", "\\",
]  # fmt: skip
OPENINGS = ["(", "[", "([", "(a", "[a,", "(BREAK ", "\\((", "(<lora:x:1>"]
CLOSINGS = [")", "]", ")]", ":1.0)", ":.99)", "b:1)", " : 1.01 )", ":0)", "", ":1..1)"]


def weights(rng):
    blank = rng.choice(["", "", " "])
    return f":{blank}{rng.choice(NUMBERS)}{blank}{rng.choice([')', ')', ']', ''])}"


SOURCES = [
    lambda rng: rng.choice(PIECES),
    lambda rng: rng.choice(BRACKETS),
    lambda rng: rng.choice(BRACKETS),
    weights,
    lambda rng: rng.choice(UNICODE),
    lambda rng: rng.choice(CONTROLS),
    lambda rng: rng.choice(TAGS),
    lambda rng: rng.choice(BREAKS),
    lambda rng: rng.choice(["a", "word, ", " ", ":", ",", "16:9"]),
    lambda rng: chr(rng.randrange(0x110000)),
]


def short_text(rng):
    """Up to 40 pieces; of few kinds, so that runs of one kind are long."""
    sources = rng.sample(SOURCES, rng.randint(1, 4))
    return "".join(rng.choice(sources)(rng) for _ in range(rng.randint(0, 40)))


def nest(rng):
    """Up to 100 KB of openings, and closings that may match."""
    opening, closing = rng.choice(OPENINGS), rng.choice(CLOSINGS)
    size = rng.randint(1_000, NEST_CHARACTERS)
    depth = size // len(opening + closing)
    return opening * depth + rng.choice(["", "a", short_text(rng)]) + closing * depth


def check(text, style, limits, *, with_render):
    try:
        prompt = parse(text, limits, style=style, field="prompt")
    except InvalidPromptError:
        return False
    end = 0
    for node in prompt.nodes:
        assert end <= node.start < node.end <= len(text)
        end = node.end
        assert isinstance(node, Break | RefusedTag) or abs(node.weight) <= limits.max_weight
        if isinstance(node, LoraTag):
            assert abs(node.text_encoder_weight) <= limits.max_weight
            assert 0 < len(node.name) <= 128
        assert not isinstance(node, Span) or node.text
    extents = prompt.extents()
    characters = "".join(span.text for span in prompt.spans)
    assert len(extents) == len(characters)
    assert all(text[end - 1] == char for char, (_, end) in zip(characters, extents, strict=True))
    assert all(before[1] <= after[0] for before, after in pairwise(extents))
    if with_render and not prompt.refused_tags:
        again = parse(render(prompt, style), UNLIMITED, style=style)
        assert again == prompt
    return True


def fuzz(count):
    seed = int(os.environ.get("LPW_TEST_SEED") or secrets.randbits(32))
    print(f"LPW_TEST_SEED={seed}")  # noqa: T201 - pytest -s shows it, and any failure
    taken = 0
    for index in range(count):
        rng = random.Random(seed * 1_000_003 + index)
        text = nest(rng) if index % STRINGS_PER_NEST == 0 else short_text(rng)
        limits = rng.choice([DEFAULT_LIMITS, UNLIMITED])
        style = rng.choice(STYLES)
        try:
            taken += check(text, style, limits, with_render=index % 8 == 0)
        except Exception as error:  # whatever it is, the string that did it is told
            raise AssertionError(
                f"LPW_TEST_SEED={seed}, string {index}, {style}: {text[:500]!r}"
            ) from error
    return taken


@pytest.mark.thorough
def test_twenty_thousand_strings():
    # Many are refused: a surrogate, a weight of 400 digits. If most were, little would be tested.
    assert fuzz(20_000) > 10_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_one_million_strings():
    assert fuzz(1_000_000) > 500_000


@pytest.mark.thorough
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, UNLIMITED], ids=["default", "unlimited"])
@pytest.mark.parametrize(
    ("opening", "closing"), [("(", ")"), ("[", "]"), ("(a", ":1.0)"), ("([", ")]"), ("((", "")]
)
def test_a_nest_of_100_kb_is_read_or_refused_by_its_limit(opening, closing, limits, style):
    depth = NEST_CHARACTERS // len(opening + closing)
    text = opening * depth + "x" + closing * depth
    is_taken = check(text, style, limits, with_render=True)
    if limits is DEFAULT_LIMITS:
        assert not is_taken  # more than 32,768 characters


def test_the_generators_make_every_kind_of_node_and_of_refusal():
    rng = random.Random(0)
    nodes, refusals = set(), set()
    for _ in range(3_000):
        try:
            nodes.update(type(node).__name__ for node in parse(short_text(rng)).nodes)
        except InvalidPromptError as error:
            refusals.add(error.message.split()[-1])
    assert nodes == {"Span", "Break", "LoraTag", "RefusedTag"}
    assert len(refusals) >= 2
    assert math.isfinite(UNLIMITED.max_weight)
