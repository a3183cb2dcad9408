"""The styles beside lpw, each against a straightforward calculation with the models themselves.

Nothing of the package but the tokenizer is used on the expected side: texts with their weights are
written out by hand, windows are laid out and weighted by loops.
"""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTokenizer

BOS, EOS = 49406, 49407
PADS = {"text_encoder": EOS, "text_encoder_2": 0}
WEIGHTED = [("a ", 1.0), ("red", 1.5), (" cat, ", 1.0), ("old", 0.25), (" house", -0.5)]
NEGATIVE = [("blurry", 1.3)]


def window(tokens, pad):
    """BOS, (id, weight) pairs, EOS, padding; with the weights."""
    rest = 77 - len(tokens) - 2
    ids = [BOS, *(id_ for id_, _ in tokens), EOS, *[pad] * rest]
    return ids, [1.0, *(weight for _, weight in tokens), 1.0, *[1.0] * rest]


def written(items):
    return "".join(text if weight == 1 else f"({text}:{weight})" for text, weight in items)


@pytest.fixture
def weigh(text_models, tokenizer):
    """Give the features of a list of windows, each (text, weight) pairs, by a formula."""

    def run(windows, formula, layer=-2):
        sides = []
        for name, model in text_models.items():
            parts = []
            for items in windows:
                tokens = [(id_, weight) for text, weight in items for id_ in tokenizer.ids(text)]
                ids, weights = window(tokens, PADS[name])
                empty_ids, _ = window([], PADS[name])
                with torch.no_grad():
                    hidden, empty = (
                        model(torch.tensor([one]), output_hidden_states=True).hidden_states[layer][
                            0
                        ]
                        for one in (ids, empty_ids)
                    )
                parts.append(formula(hidden, weights, empty))
            sides.append(torch.cat(parts))
        return torch.cat(sides, dim=-1)

    return run


@pytest.fixture
def pool(text_models, tokenizer):
    """Give the second encoder's pooled vector of a window of texts."""

    def run(texts):
        tokens = [(id_, 1.0) for text in texts for id_ in tokenizer.ids(text)]
        ids, _ = window(tokens, PADS["text_encoder_2"])
        with torch.no_grad():
            return text_models["text_encoder_2"](torch.tensor([ids])).text_embeds[0]

    return run


def no_norm(hidden, weights, empty):
    return torch.stack([row * weight for row, weight in zip(hidden, weights, strict=True)])


def original(hidden, weights, empty):
    multiplied = no_norm(hidden, weights, empty)
    return multiplied * (hidden.double().mean() / multiplied.double().mean()).float()


def comfy(hidden, weights, empty):
    return torch.stack(
        [
            nothing + (row - nothing) * weight
            for row, weight, nothing in zip(hidden, weights, empty, strict=True)
        ]
    )


FORMULAS = {"a1111": no_norm, "a1111-original": original, "comfy": comfy}


@pytest.mark.parametrize("style", FORMULAS)
@pytest.mark.parametrize("clip_skip", [None, 0, 2])
def test_formula_padding_and_pooled_vector(encoder, weigh, pool, style, clip_skip):
    conditioning = encoder.encode(written(WEIGHTED), written(NEGATIVE), style, clip_skip)
    for side, items in {"": WEIGHTED, "negative_": NEGATIVE}.items():
        torch.testing.assert_close(
            getattr(conditioning, f"{side}prompt_embeds"),
            weigh([items], FORMULAS[style], -2 - (clip_skip or 0)),
            rtol=1e-4,
            atol=1e-5,
        )
        torch.testing.assert_close(
            getattr(conditioning, f"pooled_{side}prompt_embeds")
            if not side
            else conditioning.negative_pooled_prompt_embeds,
            pool(text for text, _ in items),
        )


@pytest.mark.parametrize("style", FORMULAS)
def test_several_windows_are_weighted_each_by_itself_and_pooled_from_the_first(
    encoder, weigh, pool, style
):
    """160 tokens without a comma or a long word, of two weights that change within a window."""
    prompt = f"({'cat ' * 100}:1.3){'dog ' * 60}"
    conditioning = encoder.encode(prompt, "", style)
    windows = [
        [("cat " * 75, 1.3)],
        [("cat " * 25, 1.3), ("dog " * 50, 1.0)],
        [("dog " * 10, 1.0)],
    ]
    expected = weigh(windows, FORMULAS[style])
    torch.testing.assert_close(conditioning.prompt_embeds, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(conditioning.pooled_prompt_embeds, pool(["cat " * 75]))
    assert len(conditioning.negative_prompt_embeds) == 77


@pytest.mark.parametrize("style", ["a1111", "a1111-original"])
def test_a1111_moves_what_follows_a_late_comma(encoder, weigh, style):
    prompt = "cat " * 64 + ", " + "(dog " * 1 + "dog " * 11 + ":1.2) end"
    conditioning = encoder.encode(prompt, "x", style)
    windows = [
        [("cat " * 64, 1.0), (",", 1.0)],
        [("dog " * 12, 1.2), ("end", 1.0)],
    ]
    expected = weigh(windows, FORMULAS[style])
    torch.testing.assert_close(conditioning.prompt_embeds, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("style", ["a1111", "a1111-original"])
def test_a1111_break_fills_a_window(encoder, weigh, style):
    conditioning = encoder.encode("red (cat:1.2) BREAK blue dog", "x", style)
    windows = [[("red ", 1.0), ("cat", 1.2)], [("blue dog", 1.0)]]
    expected = weigh(windows, FORMULAS[style])
    torch.testing.assert_close(conditioning.prompt_embeds, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("style", ["a1111", "a1111-original"])
def test_a1111_empty_negative_is_zeros_and_only_that(encoder, style):
    conditioning = encoder.encode("cat " * 80, "", style)
    assert conditioning.negative_prompt_embeds.shape == (77, 80)
    assert not conditioning.negative_prompt_embeds.any()
    assert not conditioning.negative_pooled_prompt_embeds.any()
    for negative in (" ", "()", "BREAK"):
        other = encoder.encode("cat", negative, style)
        assert other.negative_prompt_embeds.any(dim=1).all()
    assert encoder.encode("", "", style).prompt_embeds.any(dim=1).all()


@pytest.mark.parametrize("style", ["a1111", "a1111-original"])
def test_a1111_allows_white_space_around_a_number(encoder, weigh, style):
    conditioning = encoder.encode("(red : 1.3) cat", "x", style)
    expected = weigh([[("red ", 1.3), (" cat", 1.0)]], FORMULAS[style])
    torch.testing.assert_close(conditioning.prompt_embeds, expected, rtol=1e-4, atol=1e-5)


def test_comfy_weights_are_absolute_and_square_brackets_are_text(encoder, weigh):
    conditioning = encoder.encode(r"((a:1.5) b [c] \(d\):0.5) e", "", "comfy")
    items = [("a", 1.5), (" b [c] (d)", 0.5), (" e", 1.0)]
    torch.testing.assert_close(
        conditioning.prompt_embeds, weigh([items], comfy), rtol=1e-4, atol=1e-5
    )


def test_comfy_weight_zero_is_the_empty_prompt(encoder):
    """Text of weight 0 has the empty prompt's states; BOS and EOS have weight 1."""
    zero = encoder.encode("(red cat:0)", "", "comfy")
    torch.testing.assert_close(zero.prompt_embeds[1:3], zero.negative_prompt_embeds[1:3])


def test_comfy_moves_a_word_that_would_be_split(encoder, weigh, tokenizer):
    word = "photorealisticness-x"
    length = len(tokenizer.ids(word))
    assert 2 < length <= 8
    conditioning = encoder.encode("cat " * 74 + word, "", "comfy")
    windows = [[("cat " * 74, 1.0)], [(word, 1.0)]]
    torch.testing.assert_close(conditioning.prompt_embeds, weigh(windows, comfy))


@pytest.fixture(scope="module")
def stock(model_directory, text_models):
    parts = {
        name: CLIPTokenizer.from_pretrained(model_directory / name)
        for name in ("tokenizer", "tokenizer_2")
    }
    return StableDiffusionXLPipeline(vae=None, unet=None, scheduler=None, **parts, **text_models)


PLAIN = [
    "",
    "a cat",
    "a (red:1.5) cat, [b] BREAK c \\(d\\) <lora:x:1>",
    "ünïcödé 猫 🐈 wow!!! !",
    "  A\n\tCAT  ",
    "a <|endoftext|> b",
    "cat " * 74,
    "cat " * 75,
    "((((",
    ":1.2)",
]


@pytest.mark.parametrize("clip_skip", [None, 0, 1])
@pytest.mark.parametrize("prompt", PLAIN, ids=range(len(PLAIN)))
@pytest.mark.parametrize("negative", ["", "dog, (blurry:1.3)", "dog " * 75], ids=["0", "1", "75"])
def test_plain_is_the_stock_pipelines_own(encoder, stock, prompt, negative, clip_skip):
    conditioning = encoder.encode(prompt, negative, "plain", clip_skip)
    with torch.no_grad():
        expected = stock.encode_prompt(
            prompt, device=torch.device("cpu"), negative_prompt=negative, clip_skip=clip_skip
        )
    for tensor, golden in zip(conditioning.tensors, expected, strict=True):
        torch.testing.assert_close(tensor, golden[0], rtol=1e-5, atol=1e-5)


def test_plain_goes_on_where_the_stock_pipeline_cuts(encoder):
    conditioning = encoder.encode("cat " * 80, "x", "plain")
    first, second = (encoder.encode("cat " * count, "x", "plain") for count in (75, 5))
    torch.testing.assert_close(
        conditioning.prompt_embeds, torch.cat([first.prompt_embeds, second.prompt_embeds])
    )
    torch.testing.assert_close(conditioning.pooled_prompt_embeds, first.pooled_prompt_embeds)
    assert len(conditioning.negative_prompt_embeds) == 77
