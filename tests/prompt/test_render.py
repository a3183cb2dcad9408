"""parse(render(tree)) == tree, to the last bit."""

import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import (
    Break,
    LoraTag,
    Prompt,
    PromptLimits,
    PromptStyle,
    RefusedTag,
    Span,
    parse,
)
from prompt_rendering import render
from prompt_strategies import breaks, lora_tags, prompt_texts, spans, trees

UNLIMITED = PromptLimits(max_characters=10**9, max_depth=10**9, max_weight=math.inf)
BREAKING = [PromptStyle.LPW, PromptStyle.A1111, PromptStyle.A1111_ORIGINAL]
styles = st.sampled_from(PromptStyle)


def assert_comes_back(prompt, style):
    again = parse(render(prompt, style), UNLIMITED, style=style)
    assert again == prompt
    assert [bits(node) for node in again.nodes] == [bits(node) for node in prompt.nodes]


def bits(node):
    weights = ("weight", "text_encoder_weight")
    return [float(getattr(node, name)).hex() for name in weights if hasattr(node, name)]


@settings(deadline=None, max_examples=400)
@given(prompt_texts, styles)
def test_what_was_parsed_comes_back(text, style):
    try:
        prompt = parse(text, UNLIMITED, style=style)
    except InvalidPromptError:
        assume(False)
    assume(not prompt.refused_tags)
    assert_comes_back(prompt, style)


@settings(deadline=None, max_examples=300)
@given(trees(spans, lora_tags, breaks), st.sampled_from(BREAKING))
@example(Prompt("", (Span("a", 2.0), Span("b", 2.0), Span("c", 2.0))), PromptStyle.LPW)
@example(Prompt("", (Span("a", -0.0), Span("b", 0.0))), PromptStyle.LPW)
@example(Prompt("", (Span("a ", 1.0), Break(), Break(), Span(" b", 1.0))), PromptStyle.LPW)
def test_any_tree_can_be_written_where_there_are_breaks(prompt, style):
    assert_comes_back(prompt, style)


@settings(deadline=None, max_examples=300)
@given(trees(spans, lora_tags))
@example(Prompt("", (Span("a\\", 1.0), Span("b", 1.5), Span("[\\", 1.0))))
def test_any_tree_without_equal_neighbours_can_be_written_in_comfy(prompt):
    pairs = zip(prompt.nodes, prompt.nodes[1:], strict=False)
    assume(
        not any(isinstance(a, Span) and a.weight == getattr(b, "weight", None) for a, b in pairs)
    )
    assert_comes_back(prompt, PromptStyle.COMFY)


@pytest.mark.parametrize(
    ("style", "nodes", "index"),
    [
        *((style, [Span("", 1.0)], 0) for style in PromptStyle),
        *((style, [Span("a", math.inf)], 0) for style in PromptStyle),
        *((style, [Span("\udc00", 1.0)], 0) for style in PromptStyle),
        *((style, [LoraTag("a:b", 1.0, 1.0)], 0) for style in PromptStyle),
        *((style, [LoraTag("", 1.0, 1.0)], 0) for style in PromptStyle),
        *((style, [LoraTag(" a", 1.0, 1.0)], 0) for style in PromptStyle),
        *((style, [LoraTag("a", math.nan, math.nan)], 0) for style in PromptStyle),
        *((style, [LoraTag("a\ud800", 1.0, 1.0)], 0) for style in PromptStyle),
        *((style, [LoraTag("a", 1.0, math.inf)], 0) for style in PromptStyle),
        *((style, [LoraTag("a ", 1.0, 1.0)], 0) for style in PromptStyle),
        *((style, [LoraTag("a\nb", 1.0, 1.0)], 0) for style in PromptStyle),
        *((style, [LoraTag("a" * 129, 1.0, 1.0)], 0) for style in PromptStyle),
        *((style, [RefusedTag("", is_lora=True)], 0) for style in PromptStyle),
        ("comfy", [Span("a", 1.0), Break()], 1),
        ("comfy", [LoraTag("a", 1.0, 1.0), Span("a", 1.5), Span("b", 1.5)], 2),
        ("plain", [Break()], 0),
        ("plain", [LoraTag("a", 1.0, 1.0)], 0),
        ("plain", [Span("a", 1.1)], 0),
        ("plain", [Span("a", 1.0), Span("b", 1.0)], 1),
    ],
)
def test_what_a_style_has_no_words_for_is_refused_by_its_node(style, nodes, index):
    with pytest.raises(InvalidPromptError, match=f"^node {index} of the prompt can't be written"):
        render(Prompt("", tuple(nodes)), PromptStyle(style))


@pytest.mark.parametrize(
    ("text", "style", "rendered"),
    [
        ("a (red:1.3) cat", "lpw", "a (red:1.3) cat"),
        ("((a)) [b]", "lpw", "(a:1.2100000000000002) (b:0.9090909090909091)"),
        (r"tag_\(x\) BREAK b", "a1111", r"tag_\(x\) BREAK b"),
        (r"\[x] ((a:1.2):1.5)", "comfy", r"\[x] (a:1.2)"),
        (r"(a:1.3) \( BREAK <lora:x:1>", "plain", r"(a:1.3) \( BREAK <lora:x:1>"),
        ("<lora:x (y):.5> a", "lpw", "<lora:x (y):0.5> a"),
        ("<lora:x>", "lpw", "<lora:x:1.0>"),
        ("<lyco: x : unet=.5>", "comfy", "<lora:x:1.0:0.5>"),
        ("<LoRA:x:1e1>", "lpw", "<lora:x:10.0>"),
        ("<()LORA:x> <()hypernet:x>", "a1111", "<()LORA:x> <()hypernet:x>"),
    ],
)
def test_text_stays_readable(text, style, rendered):
    assert render(parse(text, style=PromptStyle(style)), PromptStyle(style)) == rendered


def test_a_prompt_can_be_carried_to_another_style():
    prompt = parse("((a:1.2):1.5) [b]")
    assert parse(render(prompt, PromptStyle.COMFY), style=PromptStyle.COMFY) == prompt


def test_trees_are_equal_by_what_they_mean():
    assert parse("((a)) b") == parse("((a))() b")
    assert parse("a") != parse("(a:1.0000000000000002)")
    assert parse("a BREAK b") != parse("a b")
    assert parse("<lora:a:1>") != parse("<lora:a:2>")
