"""The tokenizer without a model is the one that serves, for both encoders."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpw_sdxl.checkpoint.tokenizer_files import (
    END_TOKEN,
    START_TOKEN,
    build_vocabulary,
    read_merges,
)
from lpw_sdxl.conditioning.tokenizer import ClipTokenizer
from prompt_strategies import prompt_texts

PAD_TOKENS = {"tokenizer": END_TOKEN, "tokenizer_2": "!"}


@pytest.fixture(scope="module", params=PAD_TOKENS)
def both(request, model_directory):
    """Ours and the one that serves, of one encoder."""
    merges = read_merges()
    special = (START_TOKEN, END_TOKEN, PAD_TOKENS[request.param])
    ours = ClipTokenizer.from_merges(build_vocabulary(merges), merges, special)
    return ours, ClipTokenizer.from_directory(model_directory / request.param)


SAMPLES = [
    "",
    "A cat,  on\na mat!",
    "wow!! ! !cat",
    "ünïcödé 猫 🐈 e\u0301 ﬁ İ",
    "don't 1girl :3 ^_^ I'LL",
    "\x00\x01\x7f\u200b\ufffd\x85\u2028x",
    "a <|endoftext|> b <|EndOfText|> <|startoftext|>x <|STARTOFTEXT|>",
]


@pytest.mark.parametrize("text", SAMPLES)
def test_ids_pieces_and_text_are_the_same(both, text):
    assert_same(both, text)


@settings(deadline=None, max_examples=300)
@given(prompt_texts | st.text())
def test_they_are_the_same_for_any_text(both, text):
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert_same(both, text)


def assert_same(both, text):
    ours, serving = both
    ids = serving.ids(text)
    assert ours.special == serving.special
    assert ours.ids(text) == ids
    assert ours.pieces(text) == serving.pieces(text)
    assert [piece.id for piece in ours.pieces(text)] == ids
    assert ours.text(ids) == serving.text(ids)


def test_pieces_tell_where_words_begin(both):
    text = "An extraordinarilyx 猫!"
    pieces = both[0].pieces(text)
    assert [(text[one.start : one.end], one.starts_word) for one in pieces][:6] == [
        ("An", True),
        ("extraordin", True),
        ("ar", False),
        ("ily", False),
        ("x", False),
        ("猫", True),
    ]
    assert (text[pieces[-1].start :], pieces[-1].starts_word) == ("!", True)
