"""Tokens and where chunks begin; each rule against one that takes the tokens one by one."""

from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.conditioning.cutting import (
    after_75,
    after_comma,
    before_word,
    by_span,
    by_word,
    cut,
    tokenize,
)
from lpw_sdxl.conditioning.windows import WeightedToken
from lpw_sdxl.prompt import parse

COMMA = 267


def characters(text):
    """A tokenizer for which every character but a blank is a token."""
    return [COMMA if character == "," else ord(character) for character in text if character != " "]


def words(*lengths):
    """A segment of words of so many tokens."""
    return tuple(
        WeightedToken(1000 + index, 1.0, starts_word=position == 0)
        for index, length in enumerate(lengths)
        for position in range(length)
    )


def with_commas(count, *commas):
    return tuple(WeightedToken(index, 1.0, is_comma=index in {*commas}) for index in range(count))


def sizes(segments, border, *, keeps_empty=True):
    chunks = cut(segments, border, keeps_empty=keeps_empty)
    assert [token for chunk in chunks for token in chunk] == [t for s in segments for t in s]
    return [len(chunk) for chunk in chunks]


def test_each_span_is_tokenized_by_itself_and_lora_tags_are_not():
    seen = []

    def token_ids(text):
        seen.append(text)
        return list(range(len(text)))

    segments = tokenize(parse("ab(cd:1.5)<lora:x:1> BREAK e"), token_ids)
    assert seen[1:] == ["ab", "cd", "e"]  # the first asks for the comma's id
    assert [[token.weight for token in segment] for segment in segments] == [
        [1.0, 1.0, 1.5, 1.5],
        [1.0],
    ]


def test_a_lora_tag_is_taken_out_as_if_it_had_never_been_written():
    for tagged, plain in [
        ("ca<lora:x:1>t", "cat"),
        ("a,<lora:x:1>,<lora:y:0.5>,b", "a,,,b"),
        ("<lora:x:1>(a:1.2)<lora:y:1>(b:1.2)c", "(ab:1.2)c"),
        ("a <lora:x:1>BREAK<lora:y:1> b", "a BREAK b"),
        ("(a<lora:x:1>b:0.5) c", "(ab:0.5) c"),
    ]:
        seen = [[], []]
        for texts, prompt in zip(seen, (tagged, plain), strict=True):
            tokenize(parse(prompt), lambda text, texts=texts: texts.append(text) or [1])
        assert [text.strip() for text in seen[0]] == [text.strip() for text in seen[1]]


def test_commas_and_the_beginnings_of_words_are_marked():
    [segment] = tokenize(parse("ab, (cd:1.5)"), characters, by_word)
    assert [(token.starts_word, token.is_comma) for token in segment] == [
        (True, False),
        (False, False),
        (False, True),
        (True, False),
        (False, False),
    ]


@given(
    st.text(alphabet=st.sampled_from("aB ,.!1\t\n\r\x0b\x1c\u00a0\u2003\u0301éΣ猫🐈'"), max_size=30)
)
def test_words_have_the_ids_of_their_span(tokenizer, text):
    in_words = [id_ for word in by_word(text) for id_ in tokenizer.ids(word)]
    assert in_words == [id_ for span in by_span(text) for id_ in tokenizer.ids(span)]


def test_a_hard_border_is_after_75():
    assert sizes([words(*[1] * 151)], after_75) == [75, 75, 1]


def test_exactly_75_tokens_are_one_chunk():
    for border in (after_75, after_comma, before_word):
        assert sizes([with_commas(75, 70)], border) == [75]
        assert sizes([with_commas(150, 70, 145)], border)[0] in {71, 75}
        assert sizes([()], border) == [0]


def test_comma_backtracking_looks_at_the_last_20_tokens():
    assert sizes([with_commas(76, 55)], after_comma) == [56, 20]
    assert sizes([with_commas(76, 54)], after_comma) == [75, 1]
    assert sizes([with_commas(76, 55, 60, 73)], after_comma) == [74, 2]
    assert sizes([with_commas(76, 74)], after_comma) == [75, 1]


def test_a_comma_that_has_no_room_begins_the_next_chunk():
    assert sizes([with_commas(76, 60, 75)], after_comma) == [75, 1]
    assert sizes([with_commas(77, 60, 76)], after_comma) == [61, 16]


def test_comma_backtracking_stays_within_its_segment():
    segments = [with_commas(75, 70), with_commas(3)]
    assert sizes(segments, after_comma) == [75, 3]


def test_backtracking_goes_on_from_where_the_last_chunk_ended():
    assert sizes([with_commas(160, 60, 60 + 70)], after_comma) == [61, 70, 29]


@given(
    segments=st.lists(
        st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), max_size=260),
        min_size=1,
        max_size=4,
    ),
)
def test_comma_backtracking_equals_a_machine_that_takes_token_by_token(segments):
    chunks, room, comma = [], [], None
    for number, flags in enumerate(segments):
        if number > 0:  # a break closes what is there
            chunks.append(room)
            room, comma = [], None
        for flag in flags:
            if len(room) == 75:
                moves = not flag and comma is not None and 75 - comma <= 20
                at = comma + 1 if moves else 75
                chunks.append(room[:at])
                room, comma = room[at:], None
            if flag:
                comma = len(room)
            room.append(flag)
    if room or not chunks:
        chunks.append(room)
    cuts = cut(
        [
            tuple(WeightedToken(flag, 1.0, is_comma=bool(flag)) for flag in flags)
            for flags in segments
        ],
        after_comma,
        keeps_empty=True,
    )
    assert [[token.id for token in chunk] for chunk in cuts] == chunks


def test_a_word_is_kept_whole_up_to_8_tokens():
    assert sizes([words(*[1] * 70, 8)], before_word) == [70, 8]
    assert sizes([words(*[1] * 70, 9)], before_word) == [75, 4]
    assert sizes([words(*[1] * 70, 8, 3)], before_word) == [70, 11]
    assert sizes([words(*[1] * 74, 2)], before_word) == [74, 2]
    assert sizes([words(*[1] * 67, 8, 1)], before_word) == [75, 1]


def test_a_word_longer_than_a_chunk_is_cut_hard():
    assert sizes([words(200)], before_word) == [75, 75, 50]
    assert sizes([words(160, 3)], before_word) == [75, 75, 13]


@given(st.lists(st.integers(1, 12), max_size=120))
def test_word_borders_equal_a_machine_that_takes_word_by_word(lengths):
    chunks, room = [], 0
    for length in lengths:
        if room + length > 75 and length <= 8:
            chunks.append(room)
            room = 0
        room += length
        while room > 75:
            chunks.append(75)
            room -= 75
    assert sizes([words(*lengths)], before_word) == (
        [*chunks, room] if room or not chunks else chunks
    )


def test_breaks_that_follow_no_text_make_chunks_only_where_they_are_kept():
    for counts, kept, dropped in [
        ((0, 4), [0, 4], [4]),
        ((4, 0), [4], [4, 0]),
        ((4, 0, 0, 4), [4, 0, 0, 4], [4, 4]),
        ((4, 0, 0), [4, 0], [4, 0]),
        ((0, 0), [0], [0]),
        ((75, 1), [75, 1], [75, 1]),
        ((76, 0, 1), [75, 1, 0, 1], [75, 1, 1]),
    ]:
        segments = [words(*[1] * count) for count in counts]
        assert sizes(segments, after_75) == kept
        assert sizes(segments, after_75, keeps_empty=False) == dropped
