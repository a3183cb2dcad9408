"""What /inspect_prompt tells."""

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.conditioning.embeddings import Embedding
from lpw_sdxl.conditioning.explain import EmbeddingMention
from lpw_sdxl.errors import InvalidPromptError
from lpw_sdxl.prompt import PromptLimits, PromptStyle, WarningKind, parse
from prompt_strategies import prompt_texts

CASTLES = "(castle:1.1) on a hill, " * 30


def told(warning, kind):
    return f"character {warning}: {kind.value}"


@pytest.fixture(scope="module")
def explain_text(encoder):
    """Explain a prompt with an empty negative prompt, in a style."""

    def explain_text(text, style=PromptStyle.LPW):
        return encoder.reader.explain(text, "", style).prompt

    return explain_text


def test_spans_breaks_tags_and_windows_are_told(encoder):
    explanation = encoder.reader.explain("a (Cat:1.2) BREAK dog<lora:x:0.5>", "blurry")
    assert explanation.style is PromptStyle.LPW
    prompt = explanation.prompt
    told = asdict(prompt)
    assert told["spans"][:2] == (
        {"text": "a ", "weight": 1.0, "start": 0, "end": 2},
        {"text": "Cat", "weight": 1.2, "start": 3, "end": 6},
    )
    assert told["breaks"] == ({"start": 12, "end": 17},)
    assert told["lora_tags"] == (
        {"name": "x", "weight": 0.5, "text_encoder_weight": 0.5, "start": 21, "end": 33},
    )
    assert (prompt.token_count, prompt.token_counts) == (3, (3, 3))
    assert [(w.text, w.token_count, w.length, w.is_pooled) for w in prompt.windows] == [
        ("a cat", 2, 77, False),
        ("dog", 1, 3, True),
    ]
    assert [(w.start, w.end) for w in prompt.windows] == [(0, 6), (18, 21)]
    assert prompt.warnings == ()
    assert [(w.text, w.token_count, w.length) for w in explanation.negative_prompt.windows] == [
        ("blurry", 1, 77),
        ("", 0, 3),
    ]
    assert [(w.start, w.end) for w in explanation.negative_prompt.windows] == [(0, 6), (6, 6)]


@pytest.mark.parametrize("style", PromptStyle)
@pytest.mark.parametrize("text", [CASTLES, "wow!! " * 26], ids=["castles", "unlike tokenizers"])
def test_windows_have_the_lengths_of_the_embeddings(encoder, style, text):
    explanation = encoder.reader.explain(text, "x", style)
    tokens = len(encoder.encode(text, "x", style).prompt_embeds)
    assert sum(window.length for window in explanation.prompt.windows) == tokens


def test_tokens_are_counted_for_each_encoder(explain_text):
    # The second encoder's tokenizer knows `!` as its padding, wherever it stands.
    assert explain_text("wow!! cat", PromptStyle.PLAIN).token_counts == (3, 4)


def test_a_chunks_text_is_where_it_says(explain_text):
    text = r"\(x\) " + "snow " * 74 + "(hill:1.2) sea"
    windows = explain_text(text).windows
    assert [window.token_count for window in windows] == [75, 4]
    # `( x )` and 72 times snow; an escape's backslash belongs to its character.
    border = text.index("snow") + 72 * len("snow ") - 1
    assert (windows[0].start, windows[0].end) == (0, border)
    assert (windows[1].start, windows[1].end) == (border + 1, len(text))
    assert text[windows[1].start :] == "snow snow (hill:1.2) sea"
    assert windows[1].text == "snow snow hill sea"


def test_a_word_split_over_a_boundary_is_warned_of(explain_text):
    text = "snow " * 74 + "extraordinarilyx, sea"
    assert explain_text(text).warnings == (told(370, WarningKind.SPLIT_WORD),)
    assert explain_text("snow " + text).warnings == ()
    # Comfy moves such a word to the next chunk.
    assert explain_text(text, PromptStyle.COMFY).warnings == ()


def test_each_split_word_counts_once_however_long_it_is(explain_text):
    word = "qzxjv" * 100
    tokens = explain_text(word).token_count
    assert tokens > 225
    assert explain_text(word).warnings == (told(0, WarningKind.SPLIT_WORD),)
    twice = f"{word} {word}"
    assert explain_text(twice).warnings == (told(0, WarningKind.SPLIT_WORD) + " (2 times)",)


def test_a_word_that_brackets_divide_is_two_words(explain_text):
    assert explain_text("snow " * 75 + "(extra:1.2)ordinarily").warnings == ()


def test_a_chunk_that_ends_at_a_break_splits_no_word(explain_text):
    assert explain_text("extra BREAK ordinarily").warnings == ()


def test_a_span_on_both_sides_of_a_tag_is_read_as_one(explain_text):
    prompt = explain_text("extra<lora:x:1>ordinarily")
    [window] = prompt.windows
    assert window.text == "extraordinarily"
    assert (window.start, window.end) == (0, 25)


def test_parsers_warnings_come_before_those_of_the_chunks(explain_text):
    warnings = explain_text("(" + "snow " * 74 + "extraordinarilyx").warnings
    assert warnings == (
        told(0, WarningKind.UNCLOSED_BRACKET),
        told(371, WarningKind.SPLIT_WORD),
    )


def test_warnings_are_sentences_without_prompt_text(encoder):
    [warning] = encoder.reader.explain("secret (cat").prompt.warnings
    assert warning.startswith("character 7: an opening bracket")


def test_two_empty_prompts_are_explained(encoder):
    explanation = encoder.reader.explain("")
    for one in (explanation.prompt, explanation.negative_prompt):
        assert one.token_count == 0
        assert [(window.length, window.start, window.end) for window in one.windows] == [(2, 0, 0)]


def test_embeddings_are_told_with_their_places(model_directory):
    vectors = (torch.zeros(8, 32), torch.zeros(8, 48))
    encoder = PromptEncoder.from_model_directory(
        model_directory, embeddings=[Embedding("Bad-Hand", vectors)]
    )
    text = r"\(x\) (bad-hand:1.3) " + "snow " * 57 + "embedding:BAD-HAND sea"
    prompt = encoder.reader.explain(text, "").prompt
    border = text.index("emb")
    assert prompt.embeddings == (
        EmbeddingMention("Bad-Hand", 7, 15),
        EmbeddingMention("Bad-Hand", border, border + 18),
    )
    assert [(w.token_count, w.text.split()[-2:]) for w in prompt.windows] == [
        (75, ["snow", "Bad-Hand"]),
        (2, ["Bad-Hand", "sea"]),
    ]
    # The first window holds a part of the name's vectors, so the name's place is in both.
    assert [(w.start, w.end) for w in prompt.windows] == [(0, border + 18), (border, len(text))]
    assert prompt.warnings == (told(border, WarningKind.SPLIT_WORD),)
    json.dumps(asdict(prompt))
    comfy = encoder.reader.explain(text, "bad-hand", "comfy")
    assert [mention.start for mention in comfy.prompt.embeddings] == [border]
    assert comfy.negative_prompt.embeddings == ()
    assert comfy.negative_prompt.windows[0].text == "bad - hand"
    assert encoder.reader.explain(text, "", "a1111").prompt.warnings == ()


def test_limits_hold(encoder):
    with pytest.raises(InvalidPromptError) as caught:
        encoder.reader.explain("a", "(b:1000)")
    assert caught.value.field == "negative_prompt"


@settings(deadline=None, max_examples=150)
@given(prompt_texts, st.integers(0, 12), st.sampled_from(PromptStyle))
def test_any_prompt_is_explained_with_its_chunks_in_the_order_of_its_text(
    encoder, text, repeats, style
):
    text = f"{text} extraordinarilyx, " * repeats
    try:
        prompt = parse(text, PromptLimits(max_depth=10**4, max_weight=1e300), style=style)
    except InvalidPromptError:
        return
    explained = encoder.reader.explain(prompt, prompt, style).prompt
    json.dumps(asdict(explained))
    starts, ends = zip(*((w.start, w.end) for w in explained.windows), strict=True)
    # A character of several tokens can be in two chunks.
    assert (list(starts), list(ends)) == (sorted(starts), sorted(ends))
    assert starts[0] >= 0
    assert ends[-1] <= len(text)
    assert sum(window.token_count for window in explained.windows) == explained.token_count
    for window in explained.windows:
        assert window.token_count <= 75
        assert (window.start == window.end) == (window.token_count == 0)


@pytest.mark.parametrize("style", ["lpw", "a1111", "comfy", "plain"])
def test_an_unknown_embedding_is_warned_of(model_directory, style):
    vectors = (torch.zeros(1, 32), torch.zeros(1, 48))
    encoder = PromptEncoder.from_model_directory(
        model_directory, embeddings=[Embedding("glow", vectors)]
    )
    text = "embedding:glow a Embedding:gloom, embedding:x, word embedding: this, dis-embedding:y"
    explained = encoder.reader.explain(text, "embedding:z", style)
    assert explained.prompt.warnings == (told(17, WarningKind.UNKNOWN_EMBEDDING) + " (2 times)",)
    assert explained.negative_prompt.warnings == (told(0, WarningKind.UNKNOWN_EMBEDDING),)
    assert [mention.name for mention in explained.prompt.embeddings] == ["glow"]
