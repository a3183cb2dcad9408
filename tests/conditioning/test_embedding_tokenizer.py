"""Texts with embeddings in them to ids, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.conditioning.embedding_tokenizer import EmbeddingTokenizer
from lpw_sdxl.conditioning.mentions import MentionForm

FIRST = 49408
IDS = {"EasyNeg": range(49408, 49410), "hand": range(49410, 49418), "hand.v2": range(49418, 49419)}
EASY, HAND, HAND_2 = [49408, 49409], list(range(49410, 49418)), [49418]


@pytest.fixture(scope="module")
def naming(tokenizer):
    return EmbeddingTokenizer(tokenizer, IDS, MentionForm.BARE_OR_PREFIXED)


def test_names_become_ids_behind_the_vocabulary_in_their_order(naming):
    assert naming.ids("easyneg hand hand.v2") == EASY + HAND + HAND_2


def test_text_beside_a_name_is_tokenized_by_itself(naming, tokenizer):
    expected = [*tokenizer.ids("a,"), *EASY, *tokenizer.ids(", b's"), *HAND, *tokenizer.ids("'s")]
    assert naming.ids("a, EasyNeg, b's hand's") == expected


def test_text_without_a_name_has_its_own_ids(naming, tokenizer):
    text = "hands, Ünïcödé 猫 <|endoftext|> easy neg"
    assert naming.ids(text) == tokenizer.ids(text)
    assert naming.pieces(text) == tokenizer.pieces(text)
    assert naming.text(naming.ids(text)) == tokenizer.text(tokenizer.ids(text))
    assert naming.special == tokenizer.special


def test_a_prefix_is_no_text(naming):
    assert naming.ids("embedding:Hand.pt") == HAND


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], ""),
        (EASY, "EasyNeg"),
        (EASY + EASY, "EasyNeg EasyNeg"),
        (HAND[:3], "hand"),
        (HAND[5:], "hand"),
        (HAND[5:] + HAND, "hand hand"),
        ([320, *HAND, 267, 1929, *HAND_2, *EASY[1:]], "a hand , dog hand.v2 EasyNeg"),
    ],
)
def test_ids_say_names_also_those_of_a_part(naming, ids, text):
    assert naming.text(ids) == text


def test_pieces_tell_places_and_names(naming):
    pieces = naming.pieces("A embedding:EASYNEG, Dog")
    assert [(p.id, p.start, p.end, p.starts_word, p.embedding) for p in pieces] == [
        (320, 0, 1, True, None),
        (49408, 2, 19, True, "EasyNeg"),
        (49409, 2, 19, False, "EasyNeg"),
        (267, 19, 20, True, None),
        (1929, 21, 24, True, None),
    ]


def test_every_id_knows_its_place_in_its_embedding(naming):
    places = naming.places_in_embeddings
    assert [places[id_] for id_ in EASY + HAND + HAND_2] == [0, 1, *range(8), 0]
    assert not places.keys() & set(range(FIRST))


@given(st.lists(st.sampled_from(["hand", "EASYNEG", "hand.v2", "s", " ", ",", "猫", "-", "!!"])))
def test_pieces_have_the_ids_and_lie_in_the_text_in_their_order(naming, parts):
    text = "".join(parts)
    pieces = naming.pieces(text)
    assert [piece.id for piece in pieces] == naming.ids(text)
    places = [(piece.start, piece.end) for piece in pieces]
    assert places == sorted(places)
    for piece in pieces:
        if piece.embedding:
            assert text[piece.start : piece.end].lower() == piece.embedding.lower()
