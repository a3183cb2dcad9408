"""Whatever is typed, only our errors come out, and the tree keeps its promises."""

import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import PromptStyle, parse
from lpw_sdxl.prompt.grammar import GRAMMARS
from prompt_strategies import PIECES, prompt_texts, prompts_of

brackets_and_text = prompts_of([piece for piece in PIECES if piece not in {"BREAK", " BREAK "}])


@settings(deadline=None, max_examples=300)
@given(prompt_texts, st.sampled_from(PromptStyle))
def test_any_text_gives_a_prompt_or_our_error(text, style):
    try:
        prompt = parse(text, style=style)
    except InvalidPromptError:
        return
    assert all(math.isfinite(span.weight) and span.text for span in prompt.spans)
    ends = [0]
    for node in prompt.nodes:
        assert ends[-1] <= node.start < node.end <= len(text)
        ends.append(node.end)


TAG_STYLES = [style for style, grammar in GRAMMARS.items() if grammar.has_lora_tags]
FORM = re.compile("<(?i:lora|lyco|hypernet):[^>]*>")
insides = st.text("abte=unx:.,19-+ dylbw\n<", max_size=20) | st.text(max_size=20)
tags = st.builds(
    lambda word, inside: f"<{word}:{inside.replace('>', '')}>",
    st.sampled_from(["lora", "lyco", "hypernet", "LoRA", "LYCO"]),
    insides,
)
words = st.text("abc ,é猫1.-", max_size=8)


@settings(deadline=None, max_examples=500)
@given(prompts_of([*PIECES, ">", ">", "<hypernet:x>", "<LYCO:"]), st.sampled_from(TAG_STYLES))
def test_no_character_of_a_tag_is_ever_text(text, style):
    try:
        prompt = parse(text, style=style)
    except InvalidPromptError:
        return
    places = [match.span() for match in FORM.finditer(text)]
    nodes = (*prompt.lora_tags, *prompt.refused_tags)
    assert sorted((node.start, node.end) for node in nodes) == places
    taken = {place for start, end in places for place in range(start, end)}
    assert taken.isdisjoint(start for start, _ in prompt.extents())


@settings(deadline=None, max_examples=500)
@given(st.lists(st.tuples(words, tags), max_size=6), st.sampled_from(TAG_STYLES))
def test_the_text_is_the_prompts_without_its_tags(pairs, style):
    try:
        prompt = parse("".join(text + tag for text, tag in pairs), style=style)
    except InvalidPromptError:  # a weight over the limit, or half of a surrogate pair
        return
    assert "".join(span.text for span in prompt.spans) == "".join(text for text, _ in pairs)
    assert len(prompt.lora_tags) + len(prompt.refused_tags) == len(pairs)


@settings(deadline=None, max_examples=300)
@given(brackets_and_text)
def test_weights_are_those_of_a_straightforward_parser(text):
    try:
        prompt = parse(text)
    except InvalidPromptError:
        return
    if len(prompt.spans) < len(prompt.nodes):  # pieces can still join to a LoRA tag
        return
    assert [(span.text, span.weight) for span in prompt.spans] == _parse_slowly(text)


def _parse_slowly(text):
    """Multiply the whole tail at each closing bracket, character by character: quadratic."""
    items, opened, position = [], {"(": [], "[": []}, 0

    def multiply(start, factor):
        for item in items[start:]:
            item[1] *= factor

    while position < len(text):
        char, rest = text[position], text[position:]
        position += 1
        number = _number(rest)
        if char == "\\":
            escaped = rest[1:2] if rest[1:2] in {"\\", "(", ")", "[", "]"} else ""
            position += len(escaped)
            items.append([escaped, 1.0])
        elif char in "([":
            opened[char].append(len(items))
        elif number is not None and opened["("] and _is_float(number):
            position += len(number) + 1
            multiply(opened["("].pop(), float(number))
        elif number is not None and not opened["("]:
            position += len(number) + 1
            items.append([f":{number})", 1.0])
        elif char == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
        elif char == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
        else:
            items.append([char, 1.0])
    for start in opened["("]:
        multiply(start, 1.1)
    for start in opened["["]:
        multiply(start, 1 / 1.1)
    return _join_slowly(items)


def _number(rest):
    if not rest.startswith(":"):
        return None
    end = rest.find(")")
    number = rest[1:end] if end > 0 else ""
    digits = number[1:] if number[:1] in {"+", "-"} else number
    return number if digits and all(c == "." or c.isdecimal() for c in digits) else None


def _is_float(number):
    try:
        float(number)
    except ValueError:
        return False
    return True


def _join_slowly(items):
    merged = []
    for piece, weight in items:
        if merged and merged[-1][1] == weight:
            merged[-1][0] += piece
        else:
            merged.append([piece, weight])
    return [(piece, weight) for piece, weight in merged if piece]
