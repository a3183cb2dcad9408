"""Tokens to windows: lengths, borders, padding and the pooled choice."""

import subprocess
import sys

import pytest

from lpw_sdxl.conditioning.chunking import (
    CHUNKINGS,
    SpecialTokens,
    WeightedToken,
    chunk_lpw,
    tokenize,
)
from lpw_sdxl.prompt import PromptStyle, parse

BOS, EOS = 901, 902
SPECIAL = SpecialTokens(BOS, EOS)


def segment(count, weight=1.0, first=0):
    return tuple(WeightedToken(first + index, weight) for index in range(count))


def lengths(chunks):
    return [len(window.ids) for window in chunks.windows]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [3]),
        (74, [76]),
        (75, [77]),
        (76, [77, 3]),
        (149, [77, 76]),
        (150, [77, 77]),
        (151, [77, 77, 3]),
        (600, [77] * 8),
    ],
)
@pytest.mark.parametrize("is_negative", [False, True], ids=["prompt", "negative"])
def test_windows_are_cut_at_75_and_the_last_is_not_padded(count, expected, is_negative):
    pair = [(segment(count),), (segment(0),)]
    chunked = chunk_lpw(*(reversed(pair) if is_negative else pair), SPECIAL)
    assert lengths(chunked.prompt) == lengths(chunked.negative_prompt) == expected
    assert chunked[is_negative].token_count == count
    assert chunked[not is_negative].token_count == 0


def test_two_empty_prompts_are_one_window_each():
    for chunks in chunk_lpw(((),), ((),), SPECIAL):
        assert [window.ids for window in chunks.windows] == [(BOS, EOS)]
        assert chunks.pooled_window == 0


def test_tokens_keep_their_order_and_weight():
    prompt, _ = chunk_lpw((segment(80, weight=1.3),), ((),), SPECIAL)
    inner = [
        pair for w in prompt.windows for pair in zip(w.ids[1:-1], w.weights[1:-1], strict=True)
    ]
    assert inner == list(segment(80, weight=1.3))
    assert {(w.ids[0], w.weights[0], w.ids[-1], w.weights[-1]) for w in prompt.windows} == {
        (BOS, 1.0, EOS, 1.0)
    }


def test_shorter_prompt_is_filled_with_eos_of_weight_one():
    _, negative = chunk_lpw((segment(77),), (segment(1, weight=0.5),), SPECIAL)
    first, last = negative.windows
    assert first.ids == (BOS, 0, *[EOS] * 74, EOS)
    assert first.weights == (1.0, 0.5, *[1.0] * 74, 1.0)
    assert last.ids == (BOS, EOS, EOS, EOS)
    assert (first.text_count, last.text_count) == (1, 0)


@pytest.mark.parametrize(
    ("prompt", "negative", "pooled"),
    [
        (10, 200, (0, 2)),
        (200, 10, (2, 2)),
        (80, 300, (1, 3)),
        (75, 76, (0, 1)),
        (0, 76, (0, 1)),
    ],
)
def test_pooled_windows_are_the_prompts_own_last_and_the_pairs_last(prompt, negative, pooled):
    chunked = chunk_lpw((segment(prompt),), (segment(negative),), SPECIAL)
    assert tuple(chunks.pooled_window for chunks in chunked) == pooled


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((2, 3), [77, 5]),
        ((75, 1), [77, 3]),
        ((76, 1), [77, 77, 3]),
        ((0, 4), [6]),
        ((4, 0), [77]),
        ((4, 0, 0, 4), [77, 6]),
        ((0, 0), [2]),
    ],
)
def test_break_starts_a_window_and_never_makes_an_empty_one(counts, expected):
    chunked = chunk_lpw(tuple(map(segment, counts)), ((),), SPECIAL)
    assert lengths(chunked.prompt) == lengths(chunked.negative_prompt) == expected
    assert chunked.prompt.token_count == sum(counts)


def test_breaks_on_either_side_keep_the_lengths_equal():
    chunked = chunk_lpw((segment(2), segment(80)), (segment(3), segment(1), segment(1)), SPECIAL)
    assert lengths(chunked.prompt) == lengths(chunked.negative_prompt)
    assert [window.text_count for window in chunked.prompt.windows] == [2, 75, 5]
    assert [window.text_count for window in chunked.negative_prompt.windows] == [3, 1, 1]
    assert chunked.prompt.pooled_window == 2


def test_each_span_is_tokenized_by_itself_and_lora_tags_are_not():
    seen = []

    def token_ids(text):
        seen.append(text)
        return list(range(len(text)))

    segments = tokenize(parse("ab(cd:1.5)<lora:x:1> BREAK e"), token_ids)
    assert seen == ["ab", "cd", "e"]
    assert [[token.weight for token in segment] for segment in segments] == [
        [1.0, 1.0, 1.5, 1.5],
        [1.0],
    ]


def test_every_style_has_a_chunking():
    assert set(CHUNKINGS) == set(PromptStyle)


def test_chunking_and_prompt_import_without_torch():
    code = (
        "import sys, lpw_sdxl.conditioning.chunking, lpw_sdxl.prompt;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
