"""What is allowed and seldom meant is told, by kind, first place and count."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import PromptStyle, WarningKind, parse
from lpw_sdxl.prompt.warning import PromptWarning
from prompt_strategies import prompt_texts

LPW, A1111, COMFY = PromptStyle.LPW, PromptStyle.A1111, PromptStyle.COMFY


@pytest.mark.parametrize(
    ("style", "text", "kind", "position", "count"),
    [
        (LPW, "a (b [c", "UNCLOSED_BRACKET", 2, 2),
        (LPW, "a [b (c", "UNCLOSED_BRACKET", 2, 2),
        (COMFY, "a (b [c", "UNCLOSED_BRACKET", 2, 1),
        (LPW, "a) b]", "UNMATCHED_BRACKET", 1, 2),
        (LPW, "a:1.2)", "UNMATCHED_BRACKET", 5, 1),
        (COMFY, "a: 1.2 )", "UNMATCHED_BRACKET", 7, 1),
        (LPW, "(a : 1.3)", "NUMBER_IS_TEXT", 8, 1),
        (LPW, "[a:1.3]", "NUMBER_IS_TEXT", 6, 1),
        (LPW, "(a:1..2)", "NUMBER_IS_TEXT", 7, 1),
        (LPW, "(a:1,2)", "NUMBER_IS_TEXT", 6, 1),
        (COMFY, "(a:1e-2)", "NUMBER_IS_TEXT", 7, 1),
        (A1111, "(a: 1.3.1 )", "NUMBER_IS_TEXT", 10, 1),
        (LPW, "(:1.2)", "WEIGHT_WITHOUT_TEXT", 1, 1),
        (LPW, "a ()[]", "WEIGHT_WITHOUT_TEXT", 2, 2),
        (LPW, "( \n:1.2)", "WEIGHT_WITHOUT_TEXT", 3, 1),
        (LPW, "(<lora:x:1>:1.2)", "WEIGHT_WITHOUT_TEXT", 11, 1),
        (LPW, "(BREAK)", "WEIGHT_WITHOUT_TEXT", 0, 1),
        (LPW, "[()a]", "WEIGHT_WITHOUT_TEXT", 1, 1),
        # all of the outer one's text has a weight of its own
        (COMFY, "((a:1.2) (b:1.3):1.5)", "WEIGHT_WITHOUT_TEXT", 16, 1),
        (LPW, "(a:1.0) (b:1)", "WEIGHT_CHANGES_NOTHING", 2, 2),
        (LPW, "((a:1.2):0)", "WEIGHT_CHANGES_NOTHING", 3, 1),
        (COMFY, "((a:1.5) b:1.5)", "WEIGHT_CHANGES_NOTHING", 3, 1),
        (LPW, r"a\b", "LONE_BACKSLASH", 1, 1),
        (LPW, "a <lora:x:1 <lyco:y", "UNCLOSED_TAG", 2, 2),
        (COMFY, "a > b <Hypernet:x", "UNCLOSED_TAG", 6, 1),
        (LPW, "< lora:x:1> <lora :x:1>", "UNKNOWN_TAG", 0, 2),
        (COMFY, "a <lyco x:1>", "UNKNOWN_TAG", 2, 1),
        (LPW, "a <loras:x:1>", "UNKNOWN_TAG", 2, 1),
        (A1111, "a <lora x 1>", "UNKNOWN_TAG", 2, 1),
        (LPW, "<style:x:1> <x-y:1>", "UNKNOWN_TAG", 0, 1),
        (LPW, "a\nbreak\nb, Break , c", "BREAK_IS_TEXT", 2, 2),
        (COMFY, "a BREAK b", "BREAK_IS_TEXT", 2, 1),
    ],
)
def test_what_was_probably_not_meant_is_warned_of(style, text, kind, position, count):
    [warning] = parse(text, style=style).warnings
    assert warning == PromptWarning(WarningKind[kind], position, count)
    times = f" ({count} times)" if count > 1 else ""
    assert str(warning) == f"character {position}: {WarningKind[kind].value}{times}"


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (LPW, r"1girl, (smile:1.2), [hat], tag_\(x\) BREAK <lora:a:1> <LoRA:b:te=1e0> 16:9"),
        (LPW, "(a (b:1.2), c:0.8), ([d]), break dance, daybreak, at the break"),
        (LPW, "<3 <a> x < y > z, a<b:c"),
        (A1111, "(a : 1.3)"),
        (COMFY, r"((a:1.2) b:1.5), ((c:1) d:1.5), a\b, [x:0.5], break"),
        (PromptStyle.PLAIN, r"(a:1.0) () b) [ <Lora:x:1> <lora:x BREAK \c"),
    ],
)
def test_ordinary_prompt_has_no_warning(style, text):
    assert parse(text, style=style).warnings == ()


@settings(deadline=None, max_examples=200)
@given(prompt_texts, st.sampled_from(PromptStyle))
def test_warnings_are_one_of_each_kind_in_order_and_point_into_the_text(text, style):
    try:
        warnings = parse(text, style=style).warnings
    except InvalidPromptError:
        return
    kinds = [warning.kind for warning in warnings]
    assert kinds == [kind for kind in WarningKind if kind in kinds]
    assert all(0 <= warning.position < len(text) and warning.count for warning in warnings)
