"""The other styles' grammars: what they read as lpw does, and what they don't."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import (
    DEFAULT_LIMITS,
    Break,
    LoraTag,
    PromptLimits,
    PromptStyle,
    Span,
    WarningKind,
    parse,
)
from lpw_sdxl.prompt.grammar import GRAMMARS
from lpw_sdxl.prompt.lexer import LEXERS
from prompt_strategies import prompt_texts, prompts_of, texts_of

A1111_STYLES = [PromptStyle.A1111, PromptStyle.A1111_ORIGINAL]
SQUARE = 1 / 1.1


def weighted(text, style, limits=DEFAULT_LIMITS):
    """Spans as (text, weight), BREAK as None, LoRA tags as (name, weight, "lora")."""
    shapes = {
        Span: lambda node: (node.text, node.weight),
        Break: lambda node: None,
        LoraTag: lambda node: (node.name, node.weight, "lora"),
    }
    return [shapes[type(node)](node) for node in parse(text, limits, style=style).nodes]


def test_every_style_has_a_grammar_and_a_lexer():
    assert set(GRAMMARS) == set(LEXERS) == set(PromptStyle)


@pytest.mark.parametrize("style", A1111_STYLES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(spaced : 1.3)", [("spaced ", 1.3)]),
        ("( weight: 0.7 )", [(" weight", 0.7)]),
        ("(a:1.3)", [("a", 1.3)]),
        ("(a:\n\t -.5\u3000)", [("a", -0.5)]),
        ("(a: 1.1.1 )b", [("a: 1.1.1 ", 1.1), ("b", 1.0)]),
        ("(a: + 1)", [("a: + 1", 1.1)]),
        ("(a: 1 2)", [("a: 1 2", 1.1)]),
        ("(a: )", [("a: ", 1.1)]),
        ("a : 1.3 )", [("a : 1.3 )", 1.0)]),
        ("[a : 1.3]", [("a : 1.3", SQUARE)]),
        ("((a : 1.2) : 1.5)", [("a ", 1.2 * 1.5), (" ", 1.5)]),
        ("a BREAK (b: 1.5)", [("a", 1.0), None, ("b", 1.5)]),
        (r"\(a\: 1.2)", [("(a: 1.2)", 1.0)]),
        ("a <lora:x:1> b", [("a ", 1.0), ("x", 1.0, "lora"), (" b", 1.0)]),
    ],
)
def test_a1111_takes_white_space_around_a_weights_number(style, text, expected):
    assert weighted(text, style) == expected


@settings(deadline=None, max_examples=300)
@given(prompts_of(["(", ")", "[", "]", "\\", ":1.3)", ":0.7)", "(a:", " BREAK ", "猫", "1", ", b"]))
def test_a1111_reads_what_lpw_reads_where_no_number_has_spaces(text):
    text = re.sub(r":\s+", ":", re.sub(r"\s+\)", ")", text))
    try:
        expected = parse(text)
    except InvalidPromptError:
        return
    for style in A1111_STYLES:
        read = parse(text, style=style)
        if WarningKind.WEIGHED_BREAK not in {warning.kind for warning in read.warnings}:
            assert read == expected


@pytest.mark.parametrize("style", A1111_STYLES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a BREAK b:1.5)", [("a", 1.5), ("BREAK", -1.5), ("b", 1.5)]),
        ("(a BREAK b)", [("a", 1.1), ("BREAK", -1.1), ("b", 1.1)]),
        ("[a BREAK b]", [("a", SQUARE), ("BREAK", -SQUARE), ("b", SQUARE)]),
        ("(x BREAK y:1.2), z", [("x", 1.2), ("BREAK", -1.2), ("y", 1.2), (", z", 1.0)]),
        ("((a BREAK b:2):1.5)", [("a", 3.0), ("BREAK", -3.0), ("b", 3.0)]),
        ("(a BREAK b:-2)", [("a", -2.0), ("BREAK", 2.0), ("b", -2.0)]),
        # never closed: the bracket counts to the end
        ("(a BREAK b", [("a", 1.1), ("BREAK", -1.1), ("b", 1.1)]),
        # beside a text of its own weight it is still a text by itself
        ("(a:-2)(BREAK:2)", [("a", -2.0), ("BREAK", -2.0)]),
        ("(BREAK BREAK:2)", [("BREAK", -2.0), ("BREAK", -2.0)]),
        # unless that is zero: minus zero equals it
        ("(a BREAK b:0)", [("aBREAKb", 0.0)]),
        # what its brackets don't change is a break
        ("(a BREAK b:1)", [("a", 1.0), None, ("b", 1.0)]),
        ("([a BREAK b])", [("a", 1.0), None, ("b", 1.0)]),
        ("(a) BREAK (b)", [("a", 1.1), None, ("b", 1.1)]),
        (r"\(a BREAK b\)", [("(a", 1.0), None, ("b)", 1.0)]),
    ],
)
def test_break_that_brackets_change_is_a_word_of_the_opposite_weight(style, text, expected):
    assert weighted(text, style) == expected
    warned = [one.position for one in parse(text, style=style).warnings if "BREAK" in str(one)]
    assert warned == ([text.index("BREAK")] if "BREAK" in str(expected) else [])


def test_the_word_and_the_texts_beside_it_have_their_own_places():
    spans = parse("(x BREAK y:1.2)", style=PromptStyle.A1111).spans
    assert [(span.start, span.end) for span in spans] == [(1, 2), (3, 8), (9, 10)]


@pytest.mark.parametrize("text", ["(a BREAK b:1.5)", "[a BREAK b]"])
def test_lpw_goes_on_breaking_inside_brackets(text):
    assert len(parse(text).breaks) == 1
    assert parse(text).warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("(a:1.3)", [("a", 1.3)]),
        ("((a))", [("a", 1.1 * 1.1)]),
        ("(((a)))", [("a", 1.0 * 1.1 * 1.1 * 1.1)]),
        # a number replaces what holds around it; a bare pair inside multiplies it
        ("((a:1.2):1.5)", [("a", 1.2)]),
        ("((a:1.2) b:1.5)", [("a", 1.2), (" b", 1.5)]),
        ("((a) b:1.5)", [("a", 1.5 * 1.1), (" b", 1.5)]),
        ("(((a:0.5)):3)", [("a", 0.5)]),
        ("((((a)) b:0.5) c:2) d", [("a", 0.5 * 1.1 * 1.1), (" b", 0.5), (" c", 2.0), (" d", 1.0)]),
        ("((a:0) b)", [("a", 0.0), (" b", 1.1)]),
        ("(a:-1)", [("a", -1.0)]),
        ("((a:9999999):0.5)", None),
        ("((a:0.5):9999999)", [("a", 0.5)]),
        # white space
        ("(a : 1.3 )", [("a ", 1.3)]),
        # a malformed number is text
        ("(a:1..2)", [("a:1..2", 1.1)]),
        ("(a:1e2)", [("a:1e2", 1.1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:)", [("a:", 1.1)]),
        ("(a:b:0.5)", [("a:b", 0.5)]),
        # what is text
        ("[a] [b:0.5]", [("[a] [b:0.5]", 1.0)]),
        ("([a:0.5)", [("[a", 0.5)]),
        ("a BREAK b", [("a BREAK b", 1.0)]),
        ("(BREAK:1.2)", [("BREAK", 1.2)]),
        # escapes are of round brackets alone
        (r"tag_\(x\)", [("tag_(x)", 1.0)]),
        (r"(tag_\(x\):1.2)", [("tag_(x)", 1.2)]),
        (r"a\b \\ \[c\]", [(r"a\b \\ \[c\]", 1.0)]),
        (r"\\(a)", [(r"\(a)", 1.0)]),
        ("a\\", [("a\\", 1.0)]),
        # brackets that don't match
        ("(a", [("a", 1.1)]),
        ("((a:1.3)", [("a", 1.3)]),
        ("((a b:1.3)", [("a b", 1.3)]),
        ("(a (b:1.3) c", [("a ", 1.1), ("b", 1.3), (" c", 1.1)]),
        ("a) b:1.2)", [("a) b:1.2)", 1.0)]),
        # LoRA tags are read
        ("<lora:x:.5>(b <lora:y:1>:2)", [("x", 0.5, "lora"), ("b ", 2.0), ("y", 1.0, "lora")]),
        ("(a)(b)", [("ab", 1.1)]),
        ("", []),
        ("()(:1.3)", []),
    ],
)  # fmt: skip
def test_comfy_has_round_brackets_and_absolute_numbers(text, expected):
    if expected is None:
        with pytest.raises(InvalidPromptError, match="outside the limit"):
            parse(text, style=PromptStyle.COMFY)
    else:
        assert weighted(text, PromptStyle.COMFY) == expected


@settings(deadline=None, max_examples=300)
@given(
    texts_of(
        st.sampled_from(["(", ")", ":1.3)", ":.5)", ":\t2\n)", "a", "b\t", ":", "1", "[", "]", ","])
    )
)
def test_comfy_weights_are_those_of_a_recursive_reading(text):
    limits = PromptLimits(max_weight=1e300)
    assert weighted(text, PromptStyle.COMFY, limits) == _read_comfy(text)


def _read_comfy(text):
    """Find each bracket's partner, then read inside it anew: quadratic, and by another way."""
    partners, opened = {}, []
    for index, char in enumerate(text):
        if char == "(":
            opened.append(index)
        elif char == ")" and opened:
            partners[opened.pop()] = index
    partners |= dict.fromkeys(opened, len(text))  # closed at the end
    merged = []
    for char, weight in _read_within(text, 0, len(text), 1.0, partners):
        if merged and merged[-1][1] == weight:
            merged[-1][0] += char
        else:
            merged.append([char, weight])
    return [(piece, weight) for piece, weight in merged]


def _read_within(text, start, end, weight, partners):
    index = start
    while index < end:
        if index not in partners:
            yield text[index], weight
            index += 1
            continue
        partner = partners[index]
        inside_end, inside = partner, weight * 1.1
        head, colon, tail = text[index + 1 : partner].rpartition(":")
        number = tail.strip()
        if partner < len(text) and colon and number.replace(".", "").isdecimal():
            try:
                inside = float(number)
                inside_end = index + 1 + len(head)
            except ValueError:
                pass
        yield from _read_within(text, index + 1, inside_end, inside, partners)
        index = partner + 1


@settings(deadline=None, max_examples=200)
@given(prompt_texts)
def test_plain_is_one_span_of_the_whole_text_and_warns_of_nothing(text):
    if any("\ud800" <= char <= "\udfff" for char in text):
        with pytest.raises(InvalidPromptError, match="surrogate"):
            parse(text, style=PromptStyle.PLAIN)
        return
    prompt = parse(text, style=PromptStyle.PLAIN)
    assert prompt.warnings == ()
    expected = [(text, 1.0, 0, len(text))] if text else []
    assert [(n.text, n.weight, n.start, n.end) for n in prompt.nodes] == expected


@pytest.mark.parametrize("style", PromptStyle)
def test_limits_hold_in_every_style(style):
    with pytest.raises(InvalidPromptError, match="the limit is 3") as caught:
        parse("abcd", PromptLimits(max_characters=3), style=style, field="negative_prompt")
    assert caught.value.field == "negative_prompt"
    if GRAMMARS[style].factors:
        with pytest.raises(InvalidPromptError, match="deeper than the limit of 3"):
            parse("((((a", PromptLimits(max_depth=3), style=style)
        with pytest.raises(InvalidPromptError, match="outside the limit"):
            parse("(a:" + "9" * 400 + ")", style=style)
        with pytest.raises(InvalidPromptError, match="outside the limit"):
            parse("<lora:a:" + "9" * 300 + ">", style=style)


@settings(deadline=None, max_examples=300)
@given(prompt_texts, st.sampled_from(PromptStyle))
def test_extents_find_each_character_in_the_source(text, style):
    try:
        prompt = parse(text, style=style)
    except InvalidPromptError:
        return
    characters = "".join(span.text for span in prompt.spans)
    extents = prompt.extents()
    assert len(extents) == len(characters)
    for char, (start, end) in zip(characters, extents, strict=True):
        assert text[start:end] in {char, "\\" + char}
    starts = [start for start, _ in extents]
    assert starts == sorted(set(starts))
