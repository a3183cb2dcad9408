"""What /inspect_prompt tells."""

import pytest

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import Break, LoraTag, PromptStyle, Span


def test_spans_breaks_tags_and_windows_are_told(encoder):
    explanation = encoder.explain("a (Cat:1.2) BREAK dog<lora:x:0.5>", "blurry")
    assert explanation.style is PromptStyle.LPW
    prompt = explanation.prompt
    assert prompt.spans[:2] == (Span("a ", 1.0, 0, 2), Span("Cat", 1.2, 3, 6))
    assert prompt.breaks == (Break(12, 17),)
    assert prompt.lora_tags == (LoraTag("x", 0.5, 21, 33),)
    assert prompt.token_count == 3
    assert [(w.text, w.token_count, w.length, w.is_pooled) for w in prompt.windows] == [
        ("a cat", 2, 77, False),
        ("dog", 1, 3, True),
    ]
    assert prompt.warnings == ()
    assert [(w.text, w.token_count, w.length) for w in explanation.negative_prompt.windows] == [
        ("blurry", 1, 77),
        ("", 0, 3),
    ]


def test_windows_have_the_lengths_of_the_embeddings(encoder):
    prompt, negative_prompt = "(castle:1.1) on a hill, " * 30, "x"
    explanation = encoder.explain(prompt, negative_prompt)
    tokens = len(encoder.encode(prompt, negative_prompt).prompt_embeds)
    assert sum(window.length for window in explanation.prompt.windows) == tokens


def test_warnings_are_sentences_without_prompt_text(encoder):
    [warning] = encoder.explain("secret (cat").prompt.warnings
    assert warning.startswith("character 7: an opening bracket")


def test_two_empty_prompts_are_explained(encoder):
    explanation = encoder.explain("")
    for one in (explanation.prompt, explanation.negative_prompt):
        assert one.token_count == 0
        assert [window.length for window in one.windows] == [2]


def test_limits_hold(encoder):
    with pytest.raises(InvalidPromptError) as caught:
        encoder.explain("a", "(b:1000)")
    assert caught.value.field == "negative_prompt"
