"""Limits are refused with an error that names them, and nothing that a user typed."""

import pytest

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import PromptLimits, parse
from lpw_sdxl.settings import Settings

SMALL = PromptLimits(max_characters=40, max_depth=3, max_weight=2.0)


@pytest.mark.parametrize("text", ["a" * 40, "(([a])", "(a:2)(b:-2)", "((a:200):0.01)"])
def test_prompt_at_the_limit_is_taken(text):
    parse(text, SMALL)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("secret " * 6, "41 characters; the limit is 40"),
        ("((([secret]", "limit of 3 at character 3"),
        ("secret (secret:2.1)", "character 8 is outside the limit of -2 to 2"),
        ("(secret:-2.1)", "character 1 is outside the limit of -2 to 2"),
        ("((secret:1.9):1.9)", "character 2 is outside the limit of -2 to 2"),
        ("(secret:" + "9" * 20 + ")", "outside the limit of -2 to 2"),
        ("<lora:secret:3>", "character 0 is outside the limit of -2 to 2"),
        ("<lora:secret:3:1>", "character 0 is outside the limit of -2 to 2"),
        ("<lora:secret:1:te=-3>", "character 0 is outside the limit of -2 to 2"),
    ],
)
def test_prompt_over_a_limit_is_refused_by_its_name(text, named):
    with pytest.raises(InvalidPromptError) as caught:
        parse(text.removesuffix(" "), SMALL, field="negative_prompt")
    assert named in caught.value.message
    assert "secret" not in caught.value.message
    assert caught.value.field == "negative_prompt"


@pytest.mark.parametrize("text", ["(a:" + "9" * 400 + ")", "((a:" + "9" * 400 + "):0)"])
def test_weight_that_overflows_is_refused_whatever_the_limit(text):
    limits = PromptLimits(max_weight=1e300)
    with pytest.raises(InvalidPromptError, match="outside the limit"):
        parse(text, limits)


@pytest.mark.parametrize("text", ["ok \ud83d", "\udc00", "\udc00\ud83d"])
def test_half_of_a_surrogate_pair_is_refused_with_its_position(text):
    position = 3 if text.startswith("ok") else 0
    with pytest.raises(InvalidPromptError, match=f"character {position} is half"):
        parse(text)


def test_control_characters_are_text():
    text = "".join(map(chr, range(32))).replace("\\", "")
    assert parse(text).spans[0].text == text


def test_the_default_is_that_of_the_settings():
    settings = Settings()
    assert PromptLimits().max_characters == settings.max_prompt_characters
