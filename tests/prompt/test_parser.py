"""The grammar: vectors that the community pipeline produced, and where we differ on purpose."""

import pytest

from lpw_sdxl.prompt import (
    DEFAULT_LIMITS,
    Break,
    LoraTag,
    PromptLimits,
    PromptStyle,
    RefusedTag,
    Span,
    WarningKind,
    parse,
)
from lpw_sdxl.prompt.grammar import GRAMMARS

SQUARE = 1 / 1.1
TAG_STYLES = [style for style, grammar in GRAMMARS.items() if grammar.has_lora_tags]

# As printed by lpw_stable_diffusion_xl's own parser; equal to the last bit.
VECTORS = [
    ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    ("[unbalanced", [("unbalanced", 0.9090909090909091)]),
    ("unbalanced)", [("unbalanced)", 1.0)]),
    ("a]b", [("a]b", 1.0)]),
    (r"\(literal\]", [("(literal]", 1.0)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [
            ("a ", 1.0),
            ("house", 1.5730000000000004),
            (" ", 1.1),
            ("on", 1.0),
            (" a ", 1.1),
            ("hill", 0.55),
            (", sun, ", 1.1),
            ("sky", 1.4641000000000006),
            (".", 1.1),
        ],
    ),
    ("(word:1.3)", [("word", 1.3)]),
    ("(word : 1.3)", [("word : 1.3", 1.1)]),
    ("(word:1.3 )", [("word:1.3 ", 1.1)]),
    ("(word: 1.3)", [("word: 1.3", 1.1)]),
    ("(word:-1)", [("word", -1.0)]),
    ("(word:+0.5)", [("word", 0.5)]),
    ("(word:.5)", [("word", 0.5)]),
    ("(word:1.)", [("word", 1.0)]),
    ("(word:0)", [("word", 0.0)]),
    ("[word:1.3]", [("word:1.3", 0.9090909090909091)]),
    ("[a:b:0.5]", [("a:b:0.5", 0.9090909090909091)]),
    ("[a|b]", [("a|b", 0.9090909090909091)]),
    ("(a:b:1.2)", [("a:b", 1.2)]),
    ("(a, (b:1.5), c:0.8)", [("a, ", 0.8), ("b", 1.2000000000000002), (", c", 0.8)]),
    ("((a:1.2):1.5)", [("a", 1.7999999999999998)]),
    (r"a\\b", [(r"a\b", 1.0)]),
    ("a\\", [("a", 1.0)]),
    (r"a\x", [("ax", 1.0)]),
    ("(a)(b:1.1)", [("ab", 1.1)]),
    ("([a])", [("a", 1.0)]),
    ("[(a)]", [("a", 1.0)]),
    ("(a))", [("a", 1.1), (")", 1.0)]),
    ("((a)", [("a", 1.2100000000000002)]),
    ("mix (a:1.2", [("mix ", 1.0), ("a:1.2", 1.1)]),
    ("(a:1.2)b:1.3)", [("a", 1.2), ("b:1.3)", 1.0)]),
    (r"(tag_\(series\):1.2)", [("tag_(series)", 1.2)]),
    ("a AND b", [("a AND b", 1.0)]),
    ("{x}", [("{x}", 1.0)]),
    ("aBREAKb", [("aBREAKb", 1.0)]),
    ("a break b", [("a break b", 1.0)]),
    # There an empty text of weight 1; here no span at all.
    ("", []),
    ("()", []),
    ("(:1.3)", []),
]


def weighted(text, limits=DEFAULT_LIMITS):
    """Spans as (text, weight), BREAK as None, LoRA tags as (name, UNet's, text encoders')."""
    shapes = {
        Span: lambda node: (node.text, node.weight),
        Break: lambda node: None,
        LoraTag: lambda node: (node.name, node.weight, node.text_encoder_weight),
    }
    return [shapes[type(node)](node) for node in parse(text, limits).nodes]


@pytest.mark.parametrize(
    ("text", "expected"), VECTORS, ids=[text or "empty" for text, _ in VECTORS]
)
def test_vector_of_the_community_parser(text, expected):
    assert weighted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a BREAK b", [("a", 1.0), None, ("b", 1.0)]),
        ("a,BREAK,b", [("a,", 1.0), None, (",b", 1.0)]),
        ("BREAK", [None]),
        ("(a BREAK b:1.5)", [("a", 1.5), None, ("b", 1.5)]),
        ("a \n BREAK\t BREAK  b", [("a", 1.0), None, None, ("b", 1.0)]),
        (" a BREAK b ", [(" a", 1.0), None, ("b ", 1.0)]),
        ("(BREAK)", [None]),
        ("a:BREAK:b", [("a:", 1.0), None, (":b", 1.0)]),
        ("BREAKING BREAK_", [("BREAKING BREAK_", 1.0)]),
    ],
)
def test_break_is_a_node_without_weight_or_text(text, expected):
    assert weighted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<lora:foo:0.8> cat", [("foo", 0.8, 0.8), (" cat", 1.0)]),
        ("(a <lora:x:-.5>b:1.2)", [("a ", 1.2), ("x", -0.5, -0.5), ("b", 1.2)]),
        ("<lora:a (v1.2):1>", [("a (v1.2)", 1.0, 1.0)]),
        ("<lora:a:1><lora:a:+2.>", [("a", 1.0, 1.0), ("a", 2.0, 2.0)]),
        ("<<lora:a:1>>", [("<", 1.0), ("a", 1.0, 1.0), (">", 1.0)]),
        ("<lora:a>", [("a", 1.0, 1.0)]),
        ("<lyco:a:.5>", [("a", 0.5, 0.5)]),
        ("<lora:a:0.2:-3>", [("a", -3.0, 0.2)]),
        ("<lora: a  b :\n0.2 :\t0.3 >", [("a  b", 0.3, 0.2)]),
        ("<lora:te=1>", [("te=1", 1.0, 1.0)]),
        ("<lora:\u0661:\u0662>", [("\u0661", 2.0, 2.0)]),
        (f"<lora: {'n' * 128} :1>", [("n" * 128, 1.0, 1.0)]),
        # Named parts, as AUTOMATIC1111 reads them.
        ("<lora:a:te=0.5:unet=2>", [("a", 2.0, 0.5)]),
        ("<lora:a:unet=2:te=0.5>", [("a", 2.0, 0.5)]),
        ("<lora:a: te = 0.5 >", [("a", 0.5, 0.5)]),
        ("<lora:a:unet=0.5>", [("a", 0.5, 1.0)]),
        ("<lora:a:3:unet=0.5>", [("a", 0.5, 3.0)]),
        ("<lora:a:3:te=0.5>", [("a", 0.5, 0.5)]),
        ("<lora:a:3:4:te=0.5>", [("a", 4.0, 0.5)]),
        ("<lora:a:te=1:2>", [("a", 1.0, 1.0)]),
        ("<lora:a:te=.5:te=0.5:unet=2>", [("a", 2.0, 0.5)]),
        ("<LORA:a:1> <LyCo:b>", [("a", 1.0, 1.0), (" ", 1.0), ("b", 1.0, 1.0)]),
        # Numbers are those of Python's float, as there.
        ("<lora:a:1e1>", [("a", 10.0, 10.0)]),
        ("<lora:a:-1E-1:+5.>", [("a", 5.0, -0.1)]),
        ("<lora:a: .5 : unet = 1_0 >", [("a", 10.0, 0.5)]),
    ],
)
def test_lora_tag_is_a_node_and_never_text(text, expected):
    assert weighted(text) == expected


NOT_FINITE = "has no finite number"
REFUSED = {
    "<lora:>": "has no name",
    "<lyco: >": "has no name",
    "<lora::1>": "has no name",
    "<lora: :1>": "has no name",
    "<lora:a:>": f"{NOT_FINITE} (it is empty) for the text encoders' weight",
    "<lora:a:1:>": f"{NOT_FINITE} (it is empty) for the UNet's weight",
    "<lora:a:x>": f"{NOT_FINITE} (x) for the text encoders' weight",
    "<lora:a:1..2>": f"{NOT_FINITE} (1..2) for",
    "<lora:a:1:0,8>": f"{NOT_FINITE} (0,8) for the UNet's weight",
    "<lora:a:0.5@0.3>": f"{NOT_FINITE} (0.5@0.3) for",
    "<lora:a:a secret>": f"{NOT_FINITE} for the text encoders' weight",
    f"<lora:a:{'9' * 400}>": f"{NOT_FINITE} for the text encoders' weight",
    "<lora:a:inf>": f"{NOT_FINITE} (inf) for",
    "<lora:a:-nan>": f"{NOT_FINITE} (-nan) for",
    "<lora:a:te=>": f"{NOT_FINITE} (it is empty) for te=, the text encoders' weight",
    "<lora:a:unet=1=2>": f"{NOT_FINITE} for unet=, the UNet's weight",
    "<lora:a:1:2:3>": "has 3 parts behind its name; the third, dyn in A1111 (a smaller rank),",
    "<lora:a:1:2:3:4>": "has 4 parts behind its name; the third, dyn",
    "<lora:a:te=1:te=2>": "has two different te=",
    "<lora:a:dyn=8>": "has the part dyn= (a smaller rank), which is not done here",
    "<lora:a:1:lbw=MIDD>": "has the part lbw= (weights of single blocks),",
    "<lora:a:lbwe=1>": "has the part lbwe= (weights of single blocks),",
    "<lora:a:1:start=3>": "has the part start= (the step at which the LoRA begins),",
    "<lora:a:1:stop=9>": "has the part stop= (the step at which the LoRA ends),",
    "<lora:a:step=1-5>": "has the part step= (the steps in which the LoRA works),",
    "<lora:a:in=0:mid=1>": "has the part in= (a weight of the UNet's first half),",
    "<lora:a:mid=1>": "has the part mid= (a weight of the UNet's middle),",
    "<lora:a:out=1>": "has the part out= (a weight of the UNet's second half),",
    "<lora:a:hr=1>": "has the part hr= (a weight of a second pass),",
    "<lora:a:TE=1>": "has the part TE=, which is not done here; te= and unet= would be right",
    "<lora:a:anything=1>": "has the part anything=, which is not done here",
    "<lora:a:a secret=1>": "has a named part, which is not done here",
    "<lora:a:=1>": "has a named part, which is not done here",
    "<lora:a\nb:1>": "has a line break or another control character in its name",
    "<lora:a\x00:1>": "has a line break or another control character in its name",
    "<lora:a\x85b:1>": "has a line break or another control character in its name",
    f"<lora:{'n' * 129}:1>": "has a name of 129 characters; at most 128 would be right",
    "<lora:a <lora:b:1>": "has another < before its >",
    "<HyperNet:a:1>": "names a hypernetwork; those are not served",
    "<hypernet:>": "names a hypernetwork; those are not served",
}


@pytest.mark.parametrize(("tag", "reason"), REFUSED.items(), ids=map(repr, REFUSED))
@pytest.mark.parametrize("style", TAG_STYLES)
def test_a_tag_that_is_not_understood_is_refused_and_never_text(tag, reason, style):
    prompt = parse(f"a {tag}, b", style=style)
    assert [span.text for span in prompt.spans] == ["a ", ", b"]
    assert prompt.warnings == ()
    [refused] = prompt.refused_tags
    assert (refused.start, refused.end) == (2, 2 + len(tag))
    noun = "tag" if "hyper" in tag.lower() else "LoRA tag"
    assert refused.reason.startswith(f"the {noun} at character 2 {reason}")
    assert "secret" not in refused.reason
    assert refused.is_lora == (noun == "LoRA tag")


NINE = {
    "<lora:demo-frame:0.8:lbw=1,0,0,0,1,1,1,1,1,1,1,1>": "lbw=",
    "<lora:demo-frame:0.8:start=3>": "start=",
    "<lora:demo-frame:0.8:stop=9>": "stop=",
    "<lora:demo-frame:0.8:in=0:mid=1:out=0>": "in=",
    "<lora:demo-frame:1:1:1>": "dyn",
    "<lora:demo-frame:te=0.5:unet=1>": LoraTag("demo-frame", 1.0, 0.5),
    "<lora:demo-frame:1e1>": LoraTag("demo-frame", 10.0, 10.0),
    "<lyco:demo-frame:0.8>": LoraTag("demo-frame", 0.8, 0.8),
    "<hypernet:x:1>": "hypernetwork",
}


@pytest.mark.parametrize("style", PromptStyle)
@pytest.mark.parametrize(("tag", "meaning"), NINE.items(), ids=NINE)
def test_a_tag_of_another_program_is_applied_or_refused_by_its_part(tag, meaning, style):
    prompt = parse(f"a {tag} b", style=style)
    if style is PromptStyle.PLAIN:
        assert prompt.nodes == (Span(prompt.text, 1.0),)
        return
    before, node, after = prompt.nodes
    assert (before, after) == (Span("a ", 1.0), Span(" b", 1.0))
    if isinstance(meaning, str):
        assert isinstance(node, RefusedTag)
        assert meaning in node.reason
    else:
        assert node == meaning


@pytest.mark.parametrize(
    "text", ["<lora:a:1", "<lora:a", "> <lora:", "<LYCO:a <lora:b", "<hypernet:x"]
)
@pytest.mark.parametrize("style", TAG_STYLES)
def test_a_tag_that_never_ends_is_text_and_warned_of(text, style):
    prompt = parse(text, style=style)
    assert [(span.text, span.weight) for span in prompt.spans] == [(text, 1.0)]
    assert [warning.kind for warning in prompt.warnings] == [WarningKind.UNCLOSED_TAG]


def test_a_tag_that_never_ends_hides_no_bracket():
    assert weighted("(<lora:x:1.2)") == [("<lora:x", 1.2)]


@pytest.mark.parametrize("text", ["<style:a:1> <3", "<a> < lora:x:1>", "<loras:x:1> <lora x>"])
def test_a_tag_of_another_kind_is_plain_text(text):
    assert weighted(text) == [(text, 1.0)]


@pytest.mark.parametrize("number", ["1..2", "..", "1.1.1", ".", "+.", "-1.-"])
def test_malformed_number_is_text_in_a_plain_bracket(number):
    assert weighted(f"(a:{number})") == [(f"a:{number}", 1.1)]


def test_malformed_number_outside_a_bracket_is_text():
    assert weighted("a:1..2)") == [("a:1..2)", 1.0)]


def test_crossing_brackets_each_close_their_own_kind():
    assert weighted("(a[b)c]d") == [("a", 1.1), ("b", 1.1 * SQUARE), ("c", SQUARE), ("d", 1.0)]


def test_unclosed_round_brackets_multiply_before_unclosed_square_ones():
    assert weighted("[[((a") == [("a", 1.0 * 1.1 * 1.1 * SQUARE * SQUARE)]


def test_factors_multiply_in_the_order_in_which_brackets_close():
    factors = [1.04, 0.99, 1.22, 1.37]  # another order gives another last bit
    text = "(" * len(factors) + "a" + "".join(f":{factor})" for factor in factors)
    expected = 1.0
    for factor in factors:
        expected *= factor
    assert weighted(text) == [("a", expected)]


def test_round_and_square_factors_multiply_in_the_order_in_which_they_close():
    assert weighted("([([x]:0.53)]:1.1)") == [("x", 0.48181818181818187)]


def test_nest_deeper_than_the_exact_depth_agrees_within_rounding():
    factors = [1.01 if index % 2 else 0.99 for index in range(200)]
    text = "(" * len(factors) + "a" + "".join(f":{factor})" for factor in factors)
    expected = 1.0
    for factor in factors:
        expected *= factor
    [(_, weight)] = weighted(text, PromptLimits(max_depth=1000))
    assert weight == pytest.approx(expected, rel=1e-12)


def test_text_between_two_spans_of_equal_weight_keeps_them_apart():
    assert weighted(r"a(\:1.3)b") == [("a", 1.0), ("b", 1.0)]


def test_positions_point_into_the_source():
    prompt = parse(r"a (b)(c)BREAK <lora:x:1>\(d")
    pieces = [prompt.text[node.start : node.end] for node in prompt.nodes]
    assert pieces == ["a ", "b)(c", "BREAK", "<lora:x:1>", r"\(d"]
    assert [span.text for span in prompt.spans] == ["a ", "bc", "(d"]


def test_properties_sort_the_nodes_by_kind():
    prompt = parse("a BREAK b <lora:x:1>")
    assert [span.text for span in prompt.spans] == ["a", "b "]
    assert [(mark.start, mark.end) for mark in prompt.breaks] == [(2, 7)]
    [tag] = prompt.lora_tags
    assert (tag.name, tag.weight, tag.start, tag.end) == ("x", 1.0, 10, 20)
