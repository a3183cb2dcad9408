"""Names of embeddings in texts."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.conditioning.mentions import MentionFinder, MentionForm

NAMES = ["EasyNeg", "hand", "hand.v2", "hand-fix", "v1.5", "embedding", "-x-"]
ANY = MentionFinder(NAMES, MentionForm.BARE_OR_PREFIXED)
PREFIXED = MentionFinder(NAMES, MentionForm.PREFIXED)


def found(text, finder=ANY):
    """What is found, as `name=what the text says`."""
    return [f"{name}={text[start:end]}" for name, start, end in finder.find(text)]


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("a hand, b", ["hand=hand"]),
        ("EASYNEG easyneg EasyNeg", ["EasyNeg=EASYNEG", "EasyNeg=easyneg", "EasyNeg=EasyNeg"]),
        ("hand hand", ["hand=hand", "hand=hand"]),
        ("hand,hand.hand", ["hand=hand"] * 3),
        ("hand's", ["hand=hand"]),
        ("hand.v2", ["hand.v2=hand.v2"]),
        ("hand.v3", ["hand=hand"]),
        ("hand.v22", ["hand=hand"]),
        ("hand-fix hand-", ["hand-fix=hand-fix"]),
        ("v1.5 v1.55 v1.5.", ["v1.5=v1.5", "v1.5=v1.5"]),
        ("v1x5", []),
        ("-x-", ["-x-=-x-"]),
        ("猫, hand", ["hand=hand"]),
        ("(hand)", ["hand=hand"]),
    ],
)
def test_a_name_is_found_as_a_whole_word_in_any_case(text, mentions):
    assert found(text) == mentions


@pytest.mark.parametrize(
    "text",
    [
        "hands",
        "xhand",
        "1hand",
        "hand1",
        "_hand",
        "hand_",
        "-hand",
        "hand-",
        "猫hand",
        "handé",
        "hand\u0301",
        "HAND²",
        "han d",
    ],
)
def test_a_name_in_a_longer_word_is_text(text):
    assert found(text) == []


def test_only_ascii_letters_have_case_and_no_place_moves():
    assert found("Ea\u017fyNeg, \u0130\u0130 ﬀ EasyNeg") == ["EasyNeg=EasyNeg"]
    assert list(MentionFinder(["k"], MentionForm.BARE_OR_PREFIXED).find("\u212a")) == []


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("embedding:hand, a", ["hand=embedding:hand"]),
        ("Embedding:EASYNEG", ["EasyNeg=Embedding:EASYNEG"]),
        ("embedding:hand.safetensors.", ["hand=embedding:hand.safetensors"]),
        ("embedding:hand.v2.pt", ["hand.v2=embedding:hand.v2.pt"]),
        ("embedding:hand.ptx", ["hand=embedding:hand"]),
        ("embedding:hands xembedding:x", []),
    ],
)
def test_a_prefix_belongs_to_the_name_in_every_style(text, mentions):
    assert found(text, PREFIXED) == mentions
    assert found(text, ANY)[: len(mentions)] == mentions


def test_where_the_prefix_is_asked_for_a_bare_name_is_text():
    assert found("hand, embedding, embedding: hand, xembedding:hand", PREFIXED) == []
    assert found("hand.pt", ANY) == ["hand=hand"]


def naive(text, names):
    """What `find` should give in a text of ASCII letters, by trying every name at every place."""
    mentions, start = [], 0
    while start < len(text):
        if start == 0 or not _joins(text[start - 1]):
            for name in sorted(names, key=len, reverse=True):
                end = start + len(name)
                if text[start:end].lower() == name and not (end < len(text) and _joins(text[end])):
                    mentions.append((name, start, end))
                    start = end - 1
                    break
        start += 1
    return mentions


def _joins(character):
    return character.isalnum() or character in "_-"


@given(
    st.lists(st.text("ab.-", min_size=1, max_size=4), min_size=1, max_size=8, unique=True),
    st.text("aAbB.-, _1é", max_size=40),
)
def test_what_is_found_is_what_trying_everything_finds(names, text):
    finder = MentionFinder(names, MentionForm.BARE_OR_PREFIXED)
    assert [tuple(mention) for mention in finder.find(text)] == naive(text, names)


@pytest.mark.parametrize(
    "unit", ["masterpiece, best quality, ", ". ", "a.", "embedding:", "-", "a"]
)
def test_two_hundred_names_in_the_longest_prompt_take_no_time(unit):
    names = ["a." * (10 + index // 4) + "bcde"[index % 4] for index in range(200)]
    finder = MentionFinder(names, MentionForm.BARE_OR_PREFIXED)
    text = (unit * 32_768)[:32_768]
    started = time.perf_counter()
    assert not list(finder.find(text))
    assert time.perf_counter() - started < 3  # 0.3 s for the worst here; a blow-up takes years
