"""The grammar: vectors that the community pipeline produced, and where we differ on purpose."""

import pytest

from lpw_sdxl.prompt import DEFAULT_LIMITS, Break, LoraTag, PromptLimits, Span, WarningKind, parse

SQUARE = 1 / 1.1

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
        (f"<lora:{'n' * 128}:1>", [("n" * 128, 1.0, 1.0)]),
        # Named parts, as AUTOMATIC1111 reads them.
        ("<lora:a:te=0.5:unet=2>", [("a", 2.0, 0.5)]),
        ("<lora:a:unet=2:te=0.5>", [("a", 2.0, 0.5)]),
        ("<lora:a: te = 0.5 >", [("a", 0.5, 0.5)]),
        ("<lora:a:unet=0.5>", [("a", 0.5, 1.0)]),
        ("<lora:a:3:unet=0.5>", [("a", 0.5, 3.0)]),
        ("<lora:a:3:te=0.5>", [("a", 0.5, 0.5)]),
        ("<lora:a:3:4:te=0.5>", [("a", 4.0, 0.5)]),
    ],
)
def test_lora_tag_is_a_node_and_never_text(text, expected):
    assert weighted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "<lora:>",
        "<lyco: >",
        "<lora::1>",
        "<lora: :1>",
        "<lora:a:>",
        "<lora:a:x>",
        "<lora:a:1..2>",
        "<lora:a:1",
        "<lora:a",
        "<lora:a:1:2:3>",
        "<lora:a:dyn=8>",
        "<lora:a:te=1:te=2>",
        "<lora:a:te=>",
        "<lora:a:te=1:2>",
        "<lora:a:lbw=MIDD>",
        "<lora:a:1e1>",
        "<lora:a:inf>",
        "<lora:a\nb:1>",
        "<lora:a\x00:1>",
        "<lora:a\x85b:1>",
        f"<lora:{'n' * 129}:1>",
    ],
)
def test_malformed_lora_tag_stays_text_and_is_warned_of(text):
    prompt = parse(text)
    assert [(span.text, span.weight) for span in prompt.spans] == [(text, 1.0)]
    assert [warning.kind for warning in prompt.warnings] == [WarningKind.MALFORMED_LORA_TAG]


def test_tag_of_another_kind_is_plain_text():
    assert weighted("<hypernet:a:1> <3") == [("<hypernet:a:1> <3", 1.0)]


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
