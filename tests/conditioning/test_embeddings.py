"""Embeddings in prompts, against the text models run by hand in float64."""

import copy
from itertools import pairwise

import pytest
import torch

from lpw_sdxl.conditioning import PromptEncoder, loading
from lpw_sdxl.conditioning.clip import ClipTextEncoder
from lpw_sdxl.conditioning.cutting import texts
from lpw_sdxl.conditioning.embedding_ids import EmbeddingIds
from lpw_sdxl.conditioning.embeddings import Embedding, make_embedding
from lpw_sdxl.conditioning.styles import STYLES
from lpw_sdxl.errors import ModelError
from lpw_sdxl.prompt import PromptStyle, parse

BOS, EOS = 49406, 49407
PADS = (EOS, 0)  # of the two tokenizers
WIDTHS = (32, 48)


def make(name, count, seed, widths=WIDTHS):
    generator = torch.Generator().manual_seed(seed)
    return Embedding(
        name, tuple(0.5 * torch.randn(count, width, generator=generator) for width in widths)
    )


EMBEDDINGS = [make("EasyNeg", 2, 1), make("Bad-Hand_v8", 8, 2), make("v1.5", 1, 3)]
EASY, HAND, V15 = EMBEDDINGS


@pytest.fixture(scope="module")
def naming(model_directory):
    return PromptEncoder.from_model_directory(model_directory, cache_bytes=0, embeddings=EMBEDDINGS)


@pytest.mark.parametrize(
    ("style", "count"), [("lpw", 21), ("a1111", 21), ("comfy", 8), ("plain", 23)]
)
def test_vectors_are_counted_as_chunking_finds_them(naming, style, count):
    text = (
        "easyneg, <lora:easyneg:1>(EasyNeg:1.2) BREAK [v1.5] embedding:bad-hand_v8.pt bad-hand_v8"
    )
    style = PromptStyle(style)
    prompt = parse(text, style=style)
    windows = naming.reader.read(prompt, "", style).prompt.chunks[0].windows
    assert sum(id_ >= 49408 for window in windows for id_ in window.ids) == count
    [tokenizer, _] = naming.reader.tokenizers[STYLES[style].mentions]
    assert sum(map(tokenizer.vector_count, texts(prompt))) == count


@pytest.fixture(scope="module")
def run(text_models):
    """Run both models in float64 on windows, with an embedding's rows put in by hand."""
    models = [copy.deepcopy(model).double() for model in text_models.values()]

    def run(index, window):
        """Hidden states and pooled vector; a window is of ids and (embedding, place)."""
        rows = {
            position: item[0].vectors[index][item[1]].double()
            for position, item in enumerate(window)
            if isinstance(item, tuple)
        }

        def put_in(_, __, output):
            output = output.clone()
            for position, row in rows.items():
                output[0, position] = row
            return output

        model = models[index]
        hook = model.get_input_embeddings().register_forward_hook(put_in)
        ids = [320 if isinstance(item, tuple) else item for item in window]
        with torch.no_grad():
            output = model(torch.tensor([ids]), output_hidden_states=True)
        hook.remove()
        return output.hidden_states[-2][0], getattr(output, "text_embeds", [None])[0]

    return run


@pytest.fixture(scope="module")
def items(tokenizer):
    """Lay out texts and embeddings as [(id or (embedding, place), weight)]."""

    def items(*parts):
        laid = []
        for part in parts:
            what, weight = part if isinstance(part, tuple) else (part, 1.0)
            if isinstance(what, Embedding):
                laid += [((what, place), weight) for place in range(what.vector_count)]
            else:
                laid += [(id_, weight) for id_ in tokenizer.ids(what)]
        return laid

    return items


def lay_out(tokens, pad=None):
    """BOS, tokens, EOS, and padding to 77 if there is a padding."""
    window = [BOS, *(item for item, _ in tokens), EOS]
    weights = [1.0, *(weight for _, weight in tokens), 1.0]
    if pad is not None:
        weights += [1.0] * (77 - len(window))
        window += [pad] * (77 - len(window))
    return window, torch.tensor(weights, dtype=torch.float64).unsqueeze(1)


def lpw(run, chunks):
    """The formula of lpw: from each window's end; windows of the tokens' own lengths."""
    sides = []
    for index in range(2):
        parts = []
        for chunk in chunks:
            window, weights = lay_out(chunk)
            hidden, pooled = run(index, window)
            parts.append(hidden[-1] + (hidden - hidden[-1]) * weights)
        sides.append(torch.cat(parts))
    return torch.cat(sides, dim=1), pooled


def a1111(run, chunks):
    """The formula of a1111: multiply; pooled from the first window."""
    sides, pooled = [], []
    for index, pad in enumerate(PADS):
        laid = [lay_out(chunk, pad) for chunk in chunks]
        runs = [run(index, window) for window, _ in laid]
        sides.append(torch.cat([h * w for (h, _), (_, w) in zip(runs, laid, strict=True)]))
        pooled.append(runs[0][1])
    return torch.cat(sides, dim=1), pooled[-1]


def comfy(run, chunks):
    """The formula of comfy: from the empty prompt at the same place; pooled from the first."""
    sides, pooled = [], []
    for index, pad in enumerate(PADS):
        empty, _ = run(index, lay_out([], pad)[0])
        laid = [lay_out(chunk, pad) for chunk in chunks]
        runs = [run(index, window) for window, _ in laid]
        sides.append(
            torch.cat([empty + (h - empty) * w for (h, _), (_, w) in zip(runs, laid, strict=True)])
        )
        pooled.append(runs[0][1])
    return torch.cat(sides, dim=1), pooled[-1]


def assert_side(conditioning, side, expected):
    embeds, pooled = expected
    for name, wanted in {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}.items():
        found = getattr(conditioning, side + name).double()
        assert found.shape == wanted.shape
        torch.testing.assert_close(
            found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()), msg=side + name
        )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a cat, easyneg, dog", ["a cat,", EASY, ", dog"]),
        ("a cat EasyNeg", ["a cat", EASY]),
        ("easyneg", [EASY]),
        ("a (EasyNeg:1.3) dog", ["a", (EASY, 1.3), "dog"]),
        ("(a EasyNeg, b:0.4) dog", [("a", 0.4), (EASY, 0.4), (", b", 0.4), "dog"]),
        ("bad-hand_v8 easyneg", [HAND, EASY]),
        ("EasyNeg,EasyNeg", [EASY, ",", EASY]),
        ("(easyneg:1.3)(v1.5:0.7)", [(EASY, 1.3), (V15, 0.7)]),
        ("embedding:easyneg, cat", [EASY, ", cat"]),
        ("(embedding:easyneg:1.3) cat", [(EASY, 1.3), "cat"]),
        ("easyneg's", [EASY, "'s"]),
        ("easy<lora:x:1>neg dog", [EASY, "dog"]),
        ("easynegs xeasyneg dog", ["easynegs xeasyneg dog"]),
    ],
)
def test_a_name_stands_for_its_vectors(naming, run, items, text, parts):
    conditioning = naming.encode(text, text)
    for side in ("", "negative_"):
        assert_side(conditioning, side, lpw(run, [items(*parts)]))


@pytest.mark.parametrize("before", range(66, 77))
@pytest.mark.parametrize("weight", [1.0, 1.3])
def test_eight_vectors_across_the_border_of_lpw(naming, run, items, before, weight):
    text = (
        "castle " * before + (f"(bad-hand_v8:{weight})" if weight != 1 else "bad-hand_v8") + " sea"
    )
    tokens = items("castle " * before, (HAND, weight), "sea")
    chunks = [tokens[:75], *filter(None, [tokens[75:]])]
    conditioning = naming.encode(text, text)
    for side in ("", "negative_"):
        assert_side(conditioning, side, lpw(run, chunks))


@pytest.mark.parametrize(
    ("before", "border"), [(60, None), (66, 75), (67, 75), (68, 68), (70, 70), (74, 74), (75, 75)]
)
def test_a1111_moves_an_embedding_as_a_whole(naming, run, items, before, border):
    tokens = items("castle " * before, (HAND, 1.3), "sea sea")
    chunks = [tokens] if border is None else [tokens[:border], tokens[border:]]
    conditioning = naming.encode("castle " * before + "(BAD-HAND_V8:1.3) sea sea", "x", "a1111")
    assert_side(conditioning, "", a1111(run, chunks))


def test_a1111_moves_the_embedding_alone_and_a_full_chunk_from_its_comma(naming, run, items):
    # The comma at 64 is near the border, but the chunk is not full when the embedding comes.
    tokens = items("castle " * 64, ",", "sea " * 5, HAND, "x")
    text = "castle " * 64 + ", " + "sea " * 5 + "bad-hand_v8 x"
    assert_side(naming.encode(text, "", "a1111"), "", a1111(run, [tokens[:70], tokens[70:]]))
    # Here it just fits, and goes along with what stands behind the comma.
    tokens = items("castle " * 64, ",", "sea " * 2, HAND, "x")
    text = "castle " * 64 + ", " + "sea " * 2 + "bad-hand_v8 x"
    assert_side(naming.encode(text, "", "a1111"), "", a1111(run, [tokens[:65], tokens[65:]]))


@pytest.mark.parametrize(
    ("before", "border"), [(60, None), (66, 74), (67, 75), (68, 68), (74, 74), (75, 75)]
)
def test_comfy_treats_an_embedding_as_a_word(naming, run, items, before, border):
    # `extraordinarilyx` has three tokens and is a word of its own.
    tokens = items("castle " * before, (HAND, 1.3), "extraordinarilyx")
    chunks = [tokens] if border is None else [tokens[:border], tokens[border:]]
    text = "castle " * before + "(embedding:bad-hand_v8:1.3)extraordinarilyx"
    assert_side(naming.encode(text, "x", "comfy"), "", comfy(run, chunks))


def test_in_comfy_what_touches_an_embedding_is_a_word_of_its_own(naming, run, items):
    for before, border in [(66, 74), (67, 75), (68, 68)]:
        tokens = items("castle " * before, HAND, ",", "sea sea")
        text = "castle " * before + "embedding:bad-hand_v8, sea sea"
        chunks = [tokens[:75], tokens[75:]] if border > 68 else [tokens[:68], tokens[68:]]
        assert_side(naming.encode(text, "", "comfy"), "", comfy(run, chunks))


def test_in_comfy_an_embedding_behind_a_comma_begins_a_word(naming, run, items):
    tokens = items("castle " * 67 + "sea,", HAND, "x")
    text = "castle " * 67 + "sea,embedding:bad-hand_v8 x"
    assert_side(naming.encode(text, "", "comfy"), "", comfy(run, [tokens[:69], tokens[69:]]))


def test_in_comfy_a_bare_name_is_text(naming, encoder):
    named, plain = (one.encode("a easyneg", "v1.5", "comfy") for one in (naming, encoder))
    assert all(map(torch.equal, named.tensors, plain.tensors))


@pytest.mark.parametrize("style", [PromptStyle.LPW, PromptStyle.A1111, PromptStyle.PLAIN])
def test_more_vectors_than_a_chunk_holds_are_cut(model_directory, run, items, style):
    huge = make("huge", 80, 9)
    encoder = PromptEncoder.from_model_directory(model_directory, cache_bytes=0, embeddings=[huge])
    tokens = items("a", huge, "b")
    first = 1 if style is PromptStyle.A1111 else 75  # moves as a whole before it is cut
    borders = [0, first, first + 75, len(tokens)]
    chunks = [tokens[a:b] for a, b in pairwise(borders)]
    formula = lpw if style is PromptStyle.LPW else a1111
    conditioning = encoder.encode("a huge b", "", style)
    assert_side(conditioning, "", formula(run, [chunk for chunk in chunks if chunk]))


@pytest.mark.parametrize("style", PromptStyle)
def test_a_prompt_that_names_none_gives_the_same_bits(naming, encoder, style):
    pair = ("a (cat:1.3), " * 40 + "<|endoftext|> !!", "dog easynegs", style, 1)
    for named, plain in zip(
        naming.encode(*pair).tensors, encoder.encode(*pair).tensors, strict=True
    ):
        assert torch.equal(named, plain)


def test_many_equal_each_alone(naming):
    pairs = [("easyneg", "a", style, skip) for style in PromptStyle for skip in (0, 3)]
    pairs += [("castle " * 70 + "bad-hand_v8", "(embedding:v1.5:0.3)", "lpw", 0)]
    read = [naming.reader.read(*pair) for pair in pairs]
    for pair, together in zip(pairs, naming.encode_many(read), strict=True):
        alone = naming.encode(*pair)
        for one, other in zip(together.tensors, alone.tensors, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_pooled_vector_is_that_of_eos_in_models_that_pool_at_the_largest_id(
    model_directory, run, items, monkeypatch
):
    """As in the config.json of most SDXL checkpoints."""
    monkeypatch.setattr(loading, "ClipTextEncoder", encoder_of_an_old_model)
    encoder = PromptEncoder.from_model_directory(
        model_directory, cache_bytes=0, embeddings=EMBEDDINGS
    )
    assert_side(encoder.encode("a easyneg b"), "", lpw(run, [items("a", EASY, "b")]))


def encoder_of_an_old_model(tokenizer, model):
    getattr(model, "text_model", model).eos_token_id = 2
    return ClipTextEncoder(tokenizer, model)


def test_the_models_own_table_stays_where_it_is(model_directory):
    encoder = PromptEncoder.from_model_directory(model_directory)
    before = encoder.weight_bytes
    tables = [one.token_table for one in encoder._encoders]
    copies = [table.clone() for table in tables]
    encoder.reader = encoder.reader_of(EMBEDDINGS)
    encoder.encode("a easyneg")
    assert encoder.weight_bytes == before
    for one, table, copied in zip(encoder._encoders, tables, copies, strict=True):
        assert one.token_table.data_ptr() == table.data_ptr()
        assert torch.equal(one.token_table, copied)


def test_rows_take_the_models_dtype(model_directory):
    encoder = PromptEncoder.from_model_directory(
        model_directory, dtype=torch.bfloat16, embeddings=EMBEDDINGS
    )
    for tensor in encoder.encode("easyneg", "v1.5").tensors:
        assert tensor.dtype == torch.bfloat16
        assert torch.isfinite(tensor).all()


def test_what_was_encoded_is_remembered_with_its_embeddings(naming, model_directory):
    caching = PromptEncoder.from_model_directory(model_directory, embeddings=EMBEDDINGS)
    first = caching.encode("a easyneg", "v1.5")
    assert caching.encode("a easyneg", "v1.5") is first
    # In another case the text is another, and it is read alike.
    assert caching.encode("a EASYNEG", "V1.5") is first
    # In the other order both windows of each encoder are known.
    hits = caching.counters.windows.hits
    again = caching.encode("V1.5", "a EASYNEG")
    assert caching.counters.windows.hits == hits + 4
    assert torch.equal(again.prompt_embeds, first.negative_prompt_embeds)
    assert not torch.equal(caching.encode("a v1.5", "v1.5").prompt_embeds, first.prompt_embeds)
    for one, other in zip(first.tensors, naming.encode("a easyneg", "v1.5").tensors, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_embeddings_come_and_go_while_prompts_are_encoded(naming, model_directory):
    encoder = PromptEncoder.from_model_directory(model_directory)
    plain = encoder.encode("a easyneg")
    old = encoder.reader_of([EASY]).read("a easyneg")
    other = make("EasyNeg", 3, 9)
    new = encoder.reader_of([other, HAND]).read("a easyneg")
    first, second = encoder.encode_many([old, new])
    assert torch.allclose(first.prompt_embeds, naming.encode("a easyneg").prompt_embeds, atol=1e-5)
    assert second.prompt_embeds.shape[0] == first.prompt_embeds.shape[0] + 1
    assert encoder.encode_many([new])[0] is second
    # The name without any embedding is text again, and the earlier embedding has its own ids still.
    assert encoder.encode_many([encoder.reader_of([]).read("a easyneg")])[0] is plain
    assert encoder.encode_many([encoder.reader_of([EASY]).read("a easyneg")])[0] is first


def test_ids_of_an_embedding_that_nobody_has_are_never_given_again():
    ids = EmbeddingIds(100)
    kept, gone = make("kept", 2, 1), make("gone", 3, 2)
    assert ids.number([kept, gone]) == {"kept": range(100, 102), "gone": range(102, 105)}
    del gone
    assert ids.number([make("gone", 3, 2), kept])["gone"] == range(105, 108)
    assert torch.equal(ids.vectors([5, 101], 0)[101], kept.vectors[0][1])
    with pytest.raises(KeyError):
        ids.vectors([103], 0)


def test_both_encoders_count_the_same_vectors(naming):
    explained = naming.reader.explain("a bad-hand_v8 b", "easyneg").prompt
    assert explained.token_counts == (10, 10)


REFUSED = {
    "other width": ([make("x", 2, 1, (32, 32))], r"shapes \[\(2, 32\), \(2, 32\)\] in place of"),
    "one encoder": ([make("x", 2, 1, (32,))], "in place of"),
    "other counts": (
        [Embedding("x", (torch.zeros(2, 32), torch.zeros(3, 48)))],
        r"\[k, 32\] and \[k, 48\]",
    ),
    "none": ([make("x", 0, 1)], "in place of"),
    "flat": ([Embedding("x", (torch.zeros(32), torch.zeros(48)))], "in place of"),
    "scalar": ([Embedding("x", (torch.tensor(1.0), torch.tensor(1.0)))], "in place of"),
    "name": ([make("a b", 1, 1)], "A-Za-z0-9"),
    "empty name": ([make("", 1, 1)], "A-Za-z0-9"),
    "nan": (
        [Embedding("x", (torch.zeros(1, 32), torch.full((1, 48), torch.nan)))],
        "no finite number",
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize(("embeddings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_a_model_error(model_directory, embeddings, message):
    encoder = PromptEncoder.from_model_directory(model_directory)
    with pytest.raises(ModelError, match=message):
        encoder.check(*embeddings)
    assert encoder.encode("x").prompt_embeds.shape == (3, 80)  # as it was


def test_a_number_too_large_for_the_models_dtype_is_refused(model_directory):
    encoder = PromptEncoder.from_model_directory(model_directory, dtype=torch.float16)
    with pytest.raises(ModelError, match="no finite number"):
        encoder.check(Embedding("x", (torch.zeros(1, 32), torch.full((1, 48), 1e6))))


def test_an_embedding_is_made_of_a_files_tensors():
    tensors = dict(zip(("text_encoder", "text_encoder_2"), EASY.vectors, strict=True))
    made = make_embedding("EasyNeg", tensors)
    assert (made.name, made.vector_count) == ("EasyNeg", 2)
    assert all(map(torch.equal, made.vectors, EASY.vectors))


@pytest.mark.parametrize("names", [["text_encoder"], ["text_encoder", "text_encoder_2", "x"]])
def test_other_tensors_are_a_model_error(names):
    with pytest.raises(ModelError, match="the embedding x must hold the tensors text_encoder and"):
        make_embedding("x", {name: torch.zeros(1, 4) for name in names})
