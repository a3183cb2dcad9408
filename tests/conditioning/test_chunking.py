"""Prompts to windows: lengths, padding and the pooled choice of every style."""

import subprocess
import sys

import pytest
import torch

from lpw_sdxl.conditioning.chunking import chunk_pair, empty_window
from lpw_sdxl.conditioning.styles import STYLES
from lpw_sdxl.conditioning.windows import SpecialTokens
from lpw_sdxl.prompt import PromptStyle, parse

BOS, EOS, PAD = 901, 902, 0
STYLES_OF_77 = [style for style in PromptStyle if style is not PromptStyle.LPW]
COUNTS = {0: 1, 1: 1, 74: 1, 75: 1, 76: 2, 149: 2, 150: 2, 151: 3, 600: 8}


class Characters:
    """A tokenizer for which every character but a blank is a token; `$` is EOS."""

    def __init__(self, pad=PAD):
        self.special = SpecialTokens(BOS, EOS, pad)
        self.places_in_embeddings = {}

    def ids(self, text):
        return [
            EOS if character == "$" else ord(character) for character in text if character != " "
        ]


def chunk(prompt, negative_prompt="", style=PromptStyle.LPW, pad=PAD):
    parsed = (parse(text, style=style) for text in (prompt, negative_prompt))
    return chunk_pair(*parsed, style, Characters(pad))


def float32(number):
    """The number as a window keeps it, and as emphasis takes it."""
    return torch.tensor(number).item()


def lengths(chunks):
    return [len(window.ids) for window in chunks.windows]


def texts(chunks):
    return ["".join(map(chr, window.ids[1 : 1 + window.text_count])) for window in chunks.windows]


def test_every_style_is_declared():
    assert set(STYLES) == set(PromptStyle)


@pytest.mark.parametrize("style", PromptStyle)
@pytest.mark.parametrize(("tokens", "windows"), COUNTS.items())
@pytest.mark.parametrize("is_negative", [False, True], ids=["prompt", "negative"])
def test_windows_of_every_style(style, tokens, windows, is_negative):
    text = "a " * tokens
    pair = chunk(*(("", text) if is_negative else (text, "")), style)
    assert len(pair[is_negative].windows) == windows
    assert pair[is_negative].token_count == tokens
    assert pair[is_negative].own_windows == windows
    assert pair[not is_negative].token_count == 0
    assert pair[not is_negative].own_windows == 1


@pytest.mark.parametrize("style", STYLES_OF_77)
@pytest.mark.parametrize("tokens", COUNTS)
def test_windows_are_full_and_each_prompt_keeps_its_own_length(style, tokens):
    pair = chunk("a " * tokens, "a", style)
    assert set(lengths(pair.prompt)) == {77}
    assert lengths(pair.negative_prompt) == [77]
    assert all(chunks.pooled_window == 0 for chunks in pair)


@pytest.mark.parametrize("tokens", range(1, 601))
def test_lpw_windows_are_cut_at_75_and_the_last_is_not_padded(tokens):
    full, rest = divmod(tokens, 75)
    expected = [77] * full + ([rest + 2] if rest else [])
    for pair in (chunk("a" * tokens, "b"), chunk("b" if tokens > 1 else "", "a" * tokens)):
        assert lengths(pair.prompt) == lengths(pair.negative_prompt) == expected


def test_two_empty_prompts_are_one_window_each():
    for chunks in chunk(""):
        assert [window.ids for window in chunks.windows] == [(BOS, EOS)]
        assert chunks.pooled_window == 0


def test_tokens_keep_their_order_and_weight():
    text = "".join(chr(200 + index) for index in range(80))
    prompt, _ = chunk(f"({text}:1.3)")
    inner = [
        pair for w in prompt.windows for pair in zip(w.ids[1:-1], w.weights[1:-1], strict=True)
    ]
    assert inner == [(ord(character), float32(1.3)) for character in text]
    assert {(w.ids[0], w.weights[0], w.ids[-1], w.weights[-1]) for w in prompt.windows} == {
        (BOS, 1.0, EOS, 1.0)
    }


def test_shorter_prompt_is_filled_with_eos_of_weight_one():
    _, negative = chunk("a" * 77, "(b:0.5)")
    first, last = negative.windows
    assert first.ids == (BOS, ord("b"), *[EOS] * 74, EOS)
    assert first.weights == (1.0, 0.5, *[1.0] * 74, 1.0)
    assert last.ids == (BOS, EOS, EOS, EOS)
    assert (first.text_count, last.text_count) == (1, 0)
    assert negative.own_windows == 1


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
def test_lpw_pools_the_prompts_own_last_window_and_the_pairs_last(prompt, negative, pooled):
    pair = chunk("a" * prompt, "b" * negative)
    assert tuple(chunks.pooled_window for chunks in pair) == pooled


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("aa BREAK bbb", [77, 5]),
        ("a" * 75 + " BREAK b", [77, 3]),
        ("a" * 76 + " BREAK b", [77, 77, 3]),
        ("BREAK bbbb", [6]),
        ("aaaa BREAK", [77]),
        ("aaaa BREAK BREAK BREAK bbbb", [77, 6]),
        ("BREAK BREAK", [2]),
    ],
)
def test_lpw_break_starts_a_window_and_never_makes_an_empty_one(prompt, expected):
    pair = chunk(prompt)
    assert lengths(pair.prompt) == lengths(pair.negative_prompt) == expected
    assert pair.prompt.own_windows == len(expected)


def test_lpw_breaks_on_either_side_keep_the_lengths_equal():
    pair = chunk("aa BREAK " + "b" * 80, "ccc BREAK d BREAK e")
    assert lengths(pair.prompt) == lengths(pair.negative_prompt)
    assert [window.text_count for window in pair.prompt.windows] == [2, 75, 5]
    assert [window.text_count for window in pair.negative_prompt.windows] == [3, 1, 1]
    assert pair.prompt.pooled_window == 2


def test_lpw_prompt_that_ends_in_a_break_has_no_window_after_it_of_its_own():
    pair = chunk("a BREAK", "b" * 160)
    assert pair.prompt.own_windows == 1
    assert texts(pair.prompt) == ["a", "", ""]


@pytest.mark.parametrize("style", ["a1111", "a1111-original"])
@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("aa BREAK bbb", ["aa", "bbb"]),
        ("BREAK b", ["", "b"]),
        ("a BREAK", ["a"]),
        ("a BREAK BREAK b", ["a", "", "b"]),
        ("a BREAK BREAK", ["a", ""]),
        ("BREAK", [""]),
        ("(aa BREAK bb:1)", ["aa", "bb"]),
        ("a" * 75 + " BREAK b", ["a" * 75, "b"]),
        ("a" * 60 + "," + "b" * 14 + " BREAK c", ["a" * 60 + "," + "b" * 14, "c"]),
        ("a" * 60 + "," + "b" * 15 + " BREAK c", ["a" * 60 + ",", "b" * 15, "c"]),
        ("a" * 60 + ",(" + "b" * 15 + ":1.2)", ["a" * 60 + ",", "b" * 15]),
        ("a" * 60 + "(,:0.5)" + "b" * 15, ["a" * 60 + ",", "b" * 15]),
    ],
)
def test_a1111_chunks_end_at_breaks_and_behind_commas(style, prompt, expected):
    chunks = chunk(prompt, style=PromptStyle(style)).prompt
    assert texts(chunks) == expected
    assert set(lengths(chunks)) == {77}
    assert chunks.own_windows == len(expected)


@pytest.mark.parametrize("style", ["a1111", "a1111-original"])
def test_a1111_reads_a_break_that_brackets_weigh_in_one_chunk(style):
    [window] = chunk("(a BREAK b:1.5)", style=PromptStyle(style)).prompt.windows
    assert window.text_count == len("aBREAKb")
    assert list(window.weights)[1:8] == [1.5, *[-1.5] * 5, 1.5]


def test_weights_move_with_their_tokens_behind_a_comma():
    chunks = chunk("a" * 60 + ",(" + "b" * 15 + ":1.2)", style=PromptStyle.A1111).prompt
    first, second = chunks.windows
    assert set(first.weights) == {1.0}
    assert second.weights == (1.0, *[float32(1.2)] * 15, *[1.0] * 61)


PADDING_CASES = {
    # text: ids after BOS, with 0 for what the encoder's own padding stands for
    "a": [97, EOS, *[PAD] * 74],
    "": [EOS, *[PAD] * 75],
    "a" * 74: [*[97] * 74, EOS, PAD],
    "a" * 75: [*[97] * 75, EOS],
}


@pytest.mark.parametrize("style", STYLES_OF_77)
@pytest.mark.parametrize(("text", "ids"), PADDING_CASES.items(), ids=["1", "0", "74", "75"])
def test_own_padding_follows_the_first_eos(style, text, ids):
    for pad in (PAD, EOS):
        [window] = chunk(text, style=style, pad=pad).prompt.windows
        assert window.ids == (BOS, *(pad if id_ == PAD else id_ for id_ in ids))


def test_an_eos_in_the_text_ends_it_for_a1111_where_padding_is_another_token():
    for pad, after in [(PAD, [PAD, PAD]), (EOS, [98, EOS])]:
        [window] = chunk("a$b", style=PromptStyle.A1111, pad=pad).prompt.windows
        assert window.ids[:5] == (BOS, 97, EOS, *after)
        assert window.ids[5:] == (pad,) * 72
    for style in (PromptStyle.COMFY, PromptStyle.PLAIN):
        [window] = chunk("a$b", style=style).prompt.windows
        assert window.ids[:6] == (BOS, 97, EOS, 98, EOS, PAD)


def test_comfy_moves_a_word_that_would_be_split():
    chunks = chunk("a " * 70 + "bcdefg h", style=PromptStyle.COMFY).prompt
    assert texts(chunks) == ["a" * 70, "bcdefgh"]
    assert chunks.windows[0].ids[70:74] == (97, EOS, PAD, PAD)


@pytest.mark.parametrize("style", PromptStyle)
def test_the_empty_window_is_that_of_an_empty_prompt(style):
    [window] = chunk("", style=style).prompt.windows
    assert empty_window(style, Characters().special) == window


@pytest.mark.processes
def test_chunking_and_prompt_import_without_torch():
    code = (
        "import sys, lpw_sdxl.conditioning.chunking, lpw_sdxl.prompt;"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
