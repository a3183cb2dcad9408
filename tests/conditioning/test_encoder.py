"""Prompts to Conditioning on the tiny encoders."""

import dataclasses
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.prompt import PromptLimits, PromptStyle, parse

LONG = ", ".join(["a very detailed castle on a hill"] * 14)  # 111 tokens
BOS, EOS = 49406, 49407


def tensors(conditioning):
    return {
        field.name: getattr(conditioning, field.name) for field in dataclasses.fields(conditioning)
    }


def assert_same(one, other, **tolerance):
    for name, tensor in tensors(one).items():
        torch.testing.assert_close(tensor, tensors(other)[name], **tolerance, msg=name)


def run(text_models, ids, layer=-2):
    """Hidden states side by side and the pooled vector of one window, straight from the models."""
    with torch.no_grad():
        outputs = [
            model(torch.tensor([ids]), output_hidden_states=True) for model in text_models.values()
        ]
    hidden = torch.cat([output.hidden_states[layer][0] for output in outputs], dim=-1)
    return hidden, outputs[-1].text_embeds[0]


COUNTS = {0: 1, 1: 1, 74: 1, 75: 1, 76: 2, 149: 2, 150: 2, 151: 3, 600: 8}


@pytest.mark.parametrize("style", PromptStyle)
@pytest.mark.parametrize(("count", "windows"), COUNTS.items())
def test_shapes(encoder, style, count, windows):
    conditioning = encoder.encode("cat " * count, "dog", style)
    full, rest = divmod(max(count, 1), 75)
    tokens = 77 * full + (rest + 2 if rest else 0) if style == "lpw" else 77 * windows
    assert {name: tuple(tensor.shape) for name, tensor in tensors(conditioning).items()} == {
        "prompt_embeds": (tokens, 80),
        "negative_prompt_embeds": (tokens if style == "lpw" else 77, 80),
        "pooled_prompt_embeds": (48,),
        "negative_pooled_prompt_embeds": (48,),
    }


@pytest.mark.thorough
def test_lpw_length_of_every_prompt_of_1_to_600_tokens(encoder):
    pairs = [encoder.reader.read("cat " * count, "dog") for count in range(1, 601)]
    for count, conditioning in enumerate(encoder.encode_many(pairs), start=1):
        full, rest = divmod(count, 75)
        expected = 77 * full + (rest + 2 if rest else 0)
        assert len(conditioning.prompt_embeds) == expected
        assert len(conditioning.negative_prompt_embeds) == expected


@pytest.mark.parametrize("style", PromptStyle)
def test_a_long_prompts_last_word_counts(encoder, style):
    cat, dog = (
        encoder.encode("castle " * 599 + word, "", style).prompt_embeds for word in ("cat", "dog")
    )
    changed = (cat != dog).any(dim=1).nonzero().flatten()
    assert len(changed) > 0
    assert changed.min() == 77 * 7 + 75  # the last of the 600, after BOS and 74 others


@pytest.mark.parametrize("style", PromptStyle)
def test_no_log_tells_of_truncation_or_anything_else(encoder, style, caplog):
    caplog.set_level(logging.DEBUG)
    libraries = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    for library in libraries:
        library.addHandler(caplog.handler)
    try:
        encoder.encode("castle, " * 600, "dog " * 80, style)
    finally:
        for library in libraries:
            library.removeHandler(caplog.handler)
    assert not caplog.records


@pytest.mark.parametrize(("clip_skip", "layer"), [(None, -2), (0, -2), (1, -3), (3, -5)])
def test_formula_and_clip_skip_for_both_prompts(encoder, text_models, tokenizer, clip_skip, layer):
    conditioning = encoder.encode("a (red:1.5) cat", "(dog:0.3) b", clip_skip=clip_skip)
    expected = {}
    for side, items in {
        "prompt_embeds": [("a ", 1.0), ("red", 1.5), (" cat", 1.0)],
        "negative_prompt_embeds": [("dog", 0.3), (" b", 1.0), ("<|endoftext|>", 1.0)],
    }.items():
        tokens = [(id_, weight) for text, weight in items for id_ in tokenizer.ids(text)]
        hidden, _ = run(text_models, [BOS, *(id_ for id_, _ in tokens), EOS], layer)
        weighted = hidden.clone()
        for position, (_, weight) in enumerate(tokens, start=1):
            weighted[position] = hidden[-1] + (hidden[position] - hidden[-1]) * weight
        expected[side] = weighted
    for side, tensor in expected.items():
        torch.testing.assert_close(getattr(conditioning, side), tensor, msg=side)


def test_pooled_vectors_feel_no_weight_and_no_clip_skip(encoder, text_models, tokenizer):
    conditioning = encoder.encode("(cat:1.9)", "(dog:0.1)", clip_skip=2)
    for side, text in {"pooled": "cat", "negative_pooled": "dog"}.items():
        _, pooled = run(text_models, [BOS, *tokenizer.ids(text), EOS])
        torch.testing.assert_close(getattr(conditioning, f"{side}_prompt_embeds"), pooled)


def test_long_negative_leaves_the_prompts_pooled_vector_alone(encoder):
    alone = encoder.encode("a cat").pooled_prompt_embeds
    beside_long = encoder.encode("a cat", LONG).pooled_prompt_embeds
    torch.testing.assert_close(beside_long, alone)
    assert not torch.allclose(beside_long, encoder.encode("").pooled_prompt_embeds, atol=1e-2)


def test_long_prompt_is_pooled_from_its_last_window(encoder, text_models, tokenizer):
    conditioning = encoder.encode(LONG, "dog")
    _, pooled = run(text_models, [BOS, *tokenizer.ids(LONG)[75:], EOS])
    torch.testing.assert_close(conditioning.pooled_prompt_embeds, pooled)


def test_short_negative_is_pooled_from_the_pairs_last_window(encoder):
    conditioning = encoder.encode(LONG, "dog")
    empty = encoder.encode("", "").negative_pooled_prompt_embeds
    torch.testing.assert_close(conditioning.negative_pooled_prompt_embeds, empty)


def test_two_empty_prompts_are_bos_and_eos(encoder, text_models):
    conditioning = encoder.encode("", "")
    hidden, pooled = run(text_models, [BOS, EOS])
    for side in ("", "negative_"):
        torch.testing.assert_close(getattr(conditioning, f"{side}prompt_embeds"), hidden)
        torch.testing.assert_close(getattr(conditioning, f"{side}pooled_prompt_embeds"), pooled)


@pytest.mark.parametrize("prompt", ["(:1.3)", "BREAK", " ", "<lora:x:1>", "\\", "( :0.5)"])
def test_prompt_without_text_is_the_empty_prompt(encoder, prompt):
    assert_same(encoder.encode(prompt), encoder.encode(""), rtol=0, atol=1e-6)


def test_break_separates_what_the_encoders_see(encoder):
    joined = encoder.encode("red cat BREAK blue dog").prompt_embeds
    blue = encoder.encode("blue dog").prompt_embeds
    torch.testing.assert_close(joined[77:], blue)


def test_lora_tag_is_never_encoded(encoder):
    assert_same(encoder.encode("a cat <lora:x:1>"), encoder.encode("a cat "), rtol=0, atol=0)


def test_word_never_joins_over_the_border_of_two_weights(encoder):
    assert encoder.encode("(ca:1.2)t").prompt_embeds.shape[0] == 4
    assert encoder.encode("(ca)(t:1.1)").prompt_embeds.shape[0] == 3


MIXED = [
    ("a (cat:1.4)", "dog"),
    (LONG, "(worst:1.3)"),
    ("", ""),
    ("cat", LONG, "lpw", 1),
    ("a BREAK b", LONG),
    ("a (cat:1.4)", "dog", "lpw", 2),
    ("(x:-3)", "", "lpw"),
    ("a!!! (cat!!:1.4)", "!!!!"),
    *(
        (prompt, negative, style, clip_skip)
        for style in PromptStyle
        for prompt, negative, clip_skip in [
            ("a (cat:1.4)", "", None),
            (f"({LONG}:1.2), [b]", "(worst:1.3)", None),
            (f"a (b:0.6), {LONG}, {LONG}", LONG, 1),
            ("a BREAK (b:1.5)", "x", 3),
        ]
    ),
]


def test_many_equal_each_alone(encoder):
    together = encoder.encode_many([encoder.reader.read(*pair) for pair in MIXED])
    for pair, conditioning in zip(MIXED, together, strict=True):
        assert_same(conditioning, encoder.encode(*pair), rtol=1e-5, atol=1e-5)


def test_window_that_occurs_twice_is_encoded_once(encoder, monkeypatch):
    counts = []
    for one in encoder._encoders:
        encode = one.encode
        monkeypatch.setattr(
            one, "encode", lambda ids, *rest, f=encode: counts.append(len(ids)) or f(ids, *rest)
        )
    read = encoder.reader.read
    encoder.encode_many([read("(cat:1.2)", "dog")] * 5 + [read("cat", "cat")])
    assert counts == [2, 2]


@pytest.mark.parametrize("style", PromptStyle)
@pytest.mark.parametrize("prompt", ["wow!!!", "a !!!! (b!!:1.2) !", "cat " * 73 + "!!!", "!" * 160])
def test_tokenizers_that_split_a_text_differently_still_fit_together(encoder, style, prompt):
    """SDXL's second tokenizer pads with `!` and splits it off: `!!!` is one token and three."""
    for pair in [(prompt, "b"), ("b", prompt)]:
        conditioning = encoder.encode(*pair, style)
        sides = [conditioning.prompt_embeds, conditioning.negative_prompt_embeds]
        assert all(torch.isfinite(side).all() for side in sides)
        if style == "lpw":
            assert sides[0].shape == sides[1].shape
        else:
            assert all(len(side) % 77 == 0 for side in sides)


def test_what_one_encoder_lacks_is_filled_with_eos(encoder, text_models):
    conditioning = encoder.encode("a!!!", "")
    filled = [[BOS, 320, 995, EOS, EOS, EOS], [BOS, 320, 0, 0, 0, EOS]]
    with torch.no_grad():
        hidden = [
            model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-2][0]
            for model, ids in zip(text_models.values(), filled, strict=True)
        ]
    torch.testing.assert_close(conditioning.prompt_embeds, torch.cat(hidden, dim=-1))


ODD_TEXT = st.lists(
    st.sampled_from(
        [
            "cat",
            " ",
            ",",
            "!",
            "!!",
            "(",
            ")",
            "[",
            "]",
            ":1.3)",
            ":0)",
            "\\",
            "BREAK",
            " BREAK ",
            "<|endoftext|>",
            "<lora:x:1>",
            "猫",
            "🐈",
            "\n",
            "cat " * 40,
            "a, " * 30,
            "x" * 300,
        ]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(prompt=ODD_TEXT, negative=ODD_TEXT, style=st.sampled_from(PromptStyle))
def test_any_text_is_encoded_and_finite(encoder, prompt, negative, style):
    conditioning = encoder.encode(prompt, negative, style)
    assert all(torch.isfinite(tensor).all() for tensor in conditioning.tensors)
    for text, embeds in zip(
        encoder.reader.read(prompt, negative, style).texts, conditioning.tensors[:2], strict=True
    ):
        for chunks in text.chunks:
            assert sum(window.length for window in chunks.windows) == len(embeds)


def test_no_pairs_give_no_conditioning(encoder):
    assert encoder.encode_many([]) == []


def test_same_prompt_gives_the_same_bits(encoder):
    assert_same(encoder.encode(LONG, "x"), encoder.encode(LONG, "x"), rtol=0, atol=0)


def test_parsed_prompt_and_named_style_are_taken(encoder):
    parsed = encoder.encode(parse("a (cat)"), parse("dog"), PromptStyle.LPW)
    assert_same(parsed, encoder.encode("a (cat)", "dog", "lpw"), rtol=0, atol=0)


@pytest.mark.parametrize("clip_skip", [-1, 4, 100])
def test_clip_skip_out_of_range_names_the_largest(encoder, clip_skip):
    with pytest.raises(InvalidRequestError, match="0 to 3") as caught:
        encoder.encode("a", clip_skip=clip_skip)
    assert caught.value.field == "clip_skip"


def test_unknown_style_names_those_that_exist(encoder):
    with pytest.raises(InvalidRequestError, match="lpw") as caught:
        encoder.encode("a", style="nonsense")
    assert caught.value.field == "prompt_style"


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
@pytest.mark.parametrize("text", ["(a:1000)", "\ud83d", "a" * 40_000])
def test_bad_text_names_the_field_it_came_in(encoder, field, text):
    with pytest.raises(InvalidPromptError) as caught:
        encoder.encode(**{"prompt": "a", "negative_prompt": "b", field: text})
    assert caught.value.field == field


def test_limits_of_the_encoder_hold_for_text(encoder):
    strict = PromptEncoder(encoder._encoders, PromptLimits(max_characters=3))
    with pytest.raises(InvalidPromptError, match="limit is 3"):
        strict.encode("four")


def test_special_token_typed_by_a_user_is_that_token(encoder, text_models):
    conditioning = encoder.encode("cat <|endoftext|> dog")
    hidden, pooled = run(text_models, [BOS, 2368, EOS, 1929, EOS])
    torch.testing.assert_close(conditioning.prompt_embeds, hidden)
    torch.testing.assert_close(conditioning.pooled_prompt_embeds, pooled)


def test_results_have_the_dtype_of_the_encoders(model_directory):
    half = PromptEncoder.from_model_directory(model_directory, dtype=torch.bfloat16)
    for tensor in tensors(half.encode("a (cat:1.3)", "dog")).values():
        assert tensor.dtype == torch.bfloat16
        assert not tensor.requires_grad
