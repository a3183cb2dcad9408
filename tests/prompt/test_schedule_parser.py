"""What a prompt becomes by step, beyond the vectors: order of reading, places, limits, warnings."""

import pytest

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import (
    DEFAULT_LIMITS,
    PromptField,
    PromptLimits,
    PromptStyle,
    Steps,
    parse_schedule,
)
from lpw_sdxl.settings import Settings

A1111, LPW, COMFY, PLAIN = (PromptStyle(name) for name in ("a1111", "lpw", "comfy", "plain"))
NEGATIVE = PromptField.NEGATIVE_PROMPT


def schedule(text, count=10, *, before=None, limits=DEFAULT_LIMITS, style=A1111, field="prompt"):
    steps, field = Steps(count, before), PromptField(field)
    return parse_schedule(text, steps, limits, style=style, field=field)


def by_step(text, count=10, **options):
    """The texts of a prompt of one part as {last step: text}."""
    [part] = schedule(text, count, **options).parts
    return {span.until_step: span.variant.text for span in part.spans}


def parts(text):
    return [(part.spans[0].variant.text, part.weight) for part in schedule(text).parts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the number's spellings
        ("[a:b:+5]", {5: "a", 10: "b"}),
        ("[a:b: \n.5\t]", {5: "a", 10: "b"}),
        ("[a:b:0.29]", {2: "a", 10: "b"}),
        ("[a:b:1e-1]", {10: "b"}),
        ("[a:b:.1e1]", {10: "a"}),
        ("[a:b:3E0]", {3: "a", 10: "b"}),
        ("[a:b:1e999]", {10: "a"}),
        ("[a:b:-1e999]", {10: "b"}),
        ("[a:b:-.5]", {10: "b"}),
        ("[a:b:1.2.3]", {10: "[a:b:1.2.3]"}),
        ("[a:b:3 4]", {10: "[a:b:3 4]"}),
        ("[a:b:1_0]", {10: "[a:b:1_0]"}),
        ("[a:b:٣]", {10: "[a:b:٣]"}),
        ("[a:b:inf]", {10: "[a:b:inf]"}),
        ("[a:b:(3)]", {10: "[a:b:(3)]"}),
        ("[1:2:3]", {3: "1", 10: "2"}),
        # what is missing
        ("[:3]", {3: "", 10: ""}),
        ("[::3]", {3: "", 10: ""}),
        ("[a::3]", {3: "a", 10: ""}),
        ("[a:b:]", {10: "[a:b:]"}),
        ("[a]", {10: "[a]"}),
        # brackets of weights inside, whole and not
        ("[(a:1.2):[b]:3]", {3: "(a:1.2)", 10: "[b]"}),
        ("[(a:b):c:3]", {3: "(a:b)", 10: "c"}),
        ("[(a:b:c):d:3]", {10: "[(a:b:c):d:3]"}),
        ("[[a:b]:c:3]", {10: "[[a:b]:c:3]"}),
        ("[a (:b:3]", {10: "[a (:b:3]"}),
        ("[(a [b:c:3]):d:5]", {3: "(a b)", 5: "(a c)", 10: "d"}),
        ("([b:c:3]", {3: "(b", 10: "(c"}),
        ("[x:(y [b:c:3]", {3: "[x:(y b", 10: "[x:(y c"}),
        ("[b:c:3])]:", {3: "b)]:", 10: "c)]:"}),
        # escapes
        (r"[a\:b:c:3]", {3: r"a\:b", 10: "c"}),
        (r"[a\|b:c:3]", {3: r"a\|b", 10: "c"}),
        (r"\\[b:c:3]", {3: r"\\b", 10: r"\\c"}),
        (r"\[b:c:3]", {10: r"\[b:c:3]"}),
        # a | or a backslash without its place makes all of it plain
        ("[b:c:3] | d", {10: "[b:c:3] | d"}),
        ("[b:c:3] (d|e)", {10: "[b:c:3] (d|e)"}),
        ("[b:c:3] [d|e", {10: "[b:c:3] [d|e"}),
        ("[b:c:3] [d|e)", {10: "[b:c:3] [d|e)"}),
        ("[b:c:3] \\", {10: "[b:c:3] \\"}),
        ("[b:c:3] \\\nd", {10: "[b:c:3] \\\nd"}),
        # BREAK is text here
        ("[a BREAK b:c:3]", {3: "a BREAK b", 10: "c"}),
    ],
)  # fmt: skip
def test_edits_are_read_as_the_grammar_has_them(text, expected):
    assert by_step(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a|b]", "abab"),
        ("[|a]", ["", "a", "", "a"]),
        ("[a|[b|c]]", "acac"),
        ("[a|[b|c|d]|e]", "acea"),
        ("[a|b:1]", ["[a|b:1]"]),
        ("[a|[b:c:2]]", "abac"),
        ("[[a:b:2]|x]", "axbx"),
        ("[[a|b]:c:2]", "abcc"),
        ("[" + "|".join("abcdefgh") + "]", "abcd"),
    ],
)
def test_alternations_take_their_turns(text, expected):
    assert list(by_step(text, 4).values()) == list(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a:b:.5]", {20: "b"}),
        ("[a:b:1.5]", {10: "a", 20: "b"}),
        ("[a:b:2.]", {20: "a"}),
        ("[a:b:30]", {20: "b"}),
        ("[a:b:35]", {5: "a", 20: "b"}),
        ("[a:b:90]", {20: "a"}),
    ],
)
def test_a_second_pass_counts_on(text, expected):
    assert by_step(text, 20, before=30) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [("a", 1.0)]),
        ("a cat :1.2", [("a cat", 1.2)]),
        ("16:9", [("16", 9.0)]),
        ("a:1:2 AND b", [("a:1", 2.0), (" b", 1.0)]),
        ("a:+.5\nAND\tb \n:\n-1. \n", [("a", 0.5), ("\tb", -1.0)]),
        ("a:1e1 AND b:. AND c:", [("a:1e1", 1.0), (" b:.", 1.0), (" c:", 1.0)]),
        (":2 AND", [("", 2.0), ("", 1.0)]),
        ("AND AND", [("", 1.0), ("", 1.0), ("", 1.0)]),
        ("a_AND b AND-c", [("a_AND b", 1.0), ("-c", 1.0)]),
        (r"\(a AND b\) :0", [(r"\(a", 1.0), (r" b\)", 0.0)]),
        ("(a cat:1.2", [("(a cat:1.2", 1.0)]),
        ("(a AND [b:1.2", [("(a", 1.0), (" [b", 1.2)]),
        ("a <lora:x:1>AND<lora:y:1> b", [("a", 1.0), (" b", 1.0)]),
        ("a A<lora:x:1>ND b", [("a", 1.0), (" b", 1.0)]),
        ("a :0.5 <lora:x:1>", [("a", 0.5)]),
        ("a #AND\n b", [("a \n b", 1.0)]),
    ],
)
def test_parts_and_their_weights(text, expected):
    assert parts(text) == expected


def test_and_in_a_bracket_splits_before_the_bracket_is_read():
    assert [(text, weight) for text, weight in parts("[a AND b:3]")] == [
        ("[a", 1.0),
        (" b:3]", 1.0),
    ]


def test_a_negative_prompt_has_no_parts_and_no_weight():
    assert by_step("a AND b :2", field="negative_prompt") == {10: "a AND b :2"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#1 girl\na", "a"),
        ("a\n# b\nc", "a\nc"),
        ("#a\n#b\nc", "c"),
        ("a # b\nc", "a \nc"),
        ("a# b", "a"),
        (r"a\# b", "a\\"),
        ("a ## b # c\r\nd", "a \nd"),
        ("[a#:\n:b:3]", "a\n"),
        ("[a|b#|\n]", "a"),
        ("a <lora:x#:1>\nb", "a <lora:x\nb"),
        ("a #<lora:x:1>\nb", "a \nb"),
        ("#", ""),
    ],
)
@pytest.mark.parametrize("field", PromptField)
def test_comments_are_taken_out_before_all_else(text, expected, field):
    assert next(iter(by_step(text, field=field).values())) == expected


@pytest.mark.parametrize("style", [LPW, COMFY, PLAIN])
@pytest.mark.parametrize("text", ["[a:b:3] AND [c|d] # e", "a :2", ""])
def test_other_styles_have_one_text_for_all_steps(text, style):
    [part] = schedule(text, style=style).parts
    [span] = part.spans
    assert (part.weight, span.until_step, span.variant.text) == (1.0, 10, text)


def test_tags_are_taken_out_with_the_text_that_they_cut_in_two():
    text = "[ca<lora:x:1>t:do<lora:y:.5:2>g:3] <hypernet:z:1>#<lora:w:1>"
    read = schedule(text)
    assert [span.variant.text for span in read.parts[0].spans] == ["cat", "dog"]
    assert [(tag.name, tag.weight, tag.text_encoder_weight) for tag in read.lora_tags] == [
        ("x", 1.0, 1.0),
        ("y", 2.0, 0.5),
    ]
    assert [text[tag.start : tag.end] for tag in read.tags] == [
        "<lora:x:1>",
        "<lora:y:.5:2>",
        "<hypernet:z:1>",
    ]
    assert "at character 35" in read.refused_tags[0].reason


def test_a_tag_that_the_text_around_one_makes_is_none():
    [part] = schedule("<lo<lora:x:1>ra:y:1>").parts
    [span] = part.spans[0].variant.prompt.spans
    assert span.text == "<lora:y:1>"


def test_every_text_is_parsed_with_places_in_the_prompt_as_it_was_written():
    text = "#c\n[(ca<lora:x:1>t:1.5)|a \\(do\\)g] end :2"
    first, second = (span.variant.prompt for span in schedule(text, 2).parts[0].spans)
    assert [(one.text, one.weight) for one in first.spans] == [("cat", 1.5), (" end", 1.0)]
    assert [text[one.start : one.end] for one in first.spans] == ["ca<lora:x:1>t", " end"]
    assert [one.text for one in second.spans] == ["a (do)g end"]
    assert [text[start:end] for start, end in second.extents()] == [
        *"a ", "\\(", *"do", "\\)", *"g end",
    ]  # fmt: skip


def test_equal_texts_are_one_object():
    spans = schedule("[cow|cow|horse] AND [horse|cow]", 6).parts[0].spans
    assert spans[0].variant is spans[1].variant is spans[3].variant
    assert [one.text for one in schedule("[a|b|a] AND [b|a|a]", 3).variants] == [
        "a",
        "b",
        " b",
        " a",
    ]


def test_stages_are_the_steps_in_which_no_part_changes():
    stages = list(schedule("[a:b:2] AND [c:d:7] :0.5").stages())
    assert [stage.until_step for stage in stages] == [2, 7, 10]
    assert [[(one.variant.text, one.weight) for one in stage.parts] for stage in stages] == [
        [("a", 1.0), (" c", 0.5)],
        [("b", 1.0), (" c", 0.5)],
        [("b", 1.0), (" d", 0.5)],
    ]


SMALL = PromptLimits(max_characters=40, max_depth=3, max_variants=3, max_parts=2)


@pytest.mark.parametrize(
    "text",
    ["[a|b|c]", "a AND b", "[[[a:b:1]:c:2]:a:3]", "a" * 40, "[a|b]" + "c" * 35, "[x|x|x|x]"],
)
def test_a_prompt_at_the_limit_is_taken(text):
    schedule(text, limits=SMALL)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[x|y|z|secret]", "more than 3 different texts, each of which is encoded; 3 would fit"),
        ("[x:y:1][x:y:2][secret:y:3]", "more than 3 different texts"),
        ("[x|y] AND [secret|z]", "more than 3 different texts"),
        ("secret [x|yz|u]" + "v" * 25, "more than 80 characters together; 80 would fit"),
        ("x AND secret AND", "into 3 parts, each of which is a row of every UNet call; 2 parts"),
        ("secret" * 7, "42 characters; the limit is 40"),
        ("#\n[[[(secret]]]", "limit of 3 at character 5"),
        ("#\n[[[[secret:1]:2]:3]:4]", "limit of 3 at character 5"),
        ("secret AND x :101", "weight at character 13 is outside the limit of -100 to 100"),
        ("#\nsecret [x:(y:101):3]", "weight at character 13 is outside"),
        ("#\n<lora:secret:101>", "weight at character 2 is outside"),
        ("secret \ud83d", "character 7 is half of a surrogate pair"),
    ],
)
def test_a_prompt_over_a_limit_is_refused_by_its_name(text, named):
    with pytest.raises(InvalidPromptError) as caught:
        schedule(text, limits=SMALL)
    assert named in caught.value.message
    assert "secret" not in caught.value.message
    assert (caught.value.field, caught.value.status) == ("prompt", 400)


def test_a_single_long_text_is_not_held_against_the_limit_of_all_texts():
    limits = PromptLimits(max_characters=100)
    assert by_step("a" * 100, limits=limits) == {10: "a" * 100}
    assert Settings().max_prompt_characters == DEFAULT_LIMITS.max_characters


@pytest.mark.parametrize(
    ("style", "field", "text", "kinds", "position"),
    [
        (LPW, "prompt", "x [a:b:3] [a|b]", ["SCHEDULE_IS_TEXT"], 2),
        (COMFY, "prompt", "x [a|b]", ["SCHEDULE_IS_TEXT"], 2),
        (LPW, "prompt", "a AND b", ["AND_IS_TEXT"], 2),
        (A1111, "negative_prompt", "a AND b", ["AND_IS_TEXT"], 2),
        (A1111, "prompt", "#1\nx [a:b:3] | c", ["SCHEDULE_IS_PLAIN", "COMMENT"], 5),
        (A1111, "prompt", "photo 16:9", ["WEIGHT_OF_ALL"], 8),
        (A1111, "prompt", "x #1 girl", ["COMMENT"], 2),
    ],
)
def test_what_was_probably_not_meant_is_warned_of(style, field, text, kinds, position):
    warnings = schedule(text, style=style, field=field).warnings
    assert [warning.kind.name for warning in warnings] == kinds
    assert warnings[0].position == position


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (A1111, "[a:b:3] AND [c|d] :2 # a comment\n##\n#masterpiece"),
        (A1111, "a | b"),
        (LPW, "[a], (b:1.2) and [c"),
        (PLAIN, "[a:b:3] AND [c|d]"),
    ],
)
def test_an_ordinary_schedule_has_no_warning(style, text):
    assert schedule(text, style=style).warnings == ()


def test_the_warnings_of_a_text_stand_at_their_places_in_the_prompt():
    [span] = schedule("# c\na <lora:x:1>(b BREAK c)").parts[0].spans
    [warning] = span.variant.prompt.warnings
    assert (warning.kind.name, warning.position) == ("WEIGHED_BREAK", 19)
