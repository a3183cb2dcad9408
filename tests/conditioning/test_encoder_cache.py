"""What a PromptEncoder remembers."""

import pytest
import torch

from lpw_sdxl.conditioning import PromptEncoder
from lpw_sdxl.conditioning.cache import ByteCache
from lpw_sdxl.prompt import PromptStyle, parse

NEGATIVE = "worst quality, " * 30


@pytest.fixture
def read_windows(encoder, monkeypatch):
    """Count the windows that each call of an encoder reads."""
    counts = []
    for one in encoder._encoders:
        encode = one.encode
        monkeypatch.setattr(
            one, "encode", lambda ids, *rest, f=encode: counts.append(len(ids)) or f(ids, *rest)
        )
    return counts


def same_bits(one, other):
    return all(map(torch.equal, one.tensors, other.tensors))


@pytest.mark.parametrize("style", PromptStyle)
def test_a_repeated_pair_is_neither_encoded_nor_planned_again(
    encoder, caching_encoder, style, read_windows, monkeypatch
):
    first, again = (
        caching_encoder.reader.read("a (cat:1.2)", NEGATIVE, style, 1) for _ in range(2)
    )
    [conditioning] = caching_encoder.encode_many([first])
    read_windows.clear()
    monkeypatch.setattr("lpw_sdxl.conditioning.encoder.make_plan", None)
    repeated = caching_encoder.encode_many([again, first])
    assert not read_windows
    assert all(one is conditioning for one in repeated)
    monkeypatch.undo()
    assert same_bits(conditioning, encoder.encode_many([again])[0])


def test_a_shared_negative_prompt_is_read_once(caching_encoder, read_windows):
    caching_encoder.encode("a cat", NEGATIVE, "a1111")
    read_windows.clear()
    caching_encoder.encode("a dog", NEGATIVE, "a1111")
    assert read_windows == [1, 1]


def test_what_a_window_gives_does_not_depend_on_where_it_came_from(encoder, caching_encoder):
    for pair in [("a cat", NEGATIVE), ("a dog", NEGATIVE), ("a cat", "(dog:1.3)")]:
        remembered = caching_encoder.encode(*pair, "a1111")
        fresh = encoder.encode(*pair, "a1111")
        for one, other in zip(remembered.tensors, fresh.tensors, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a cats"},
        {"prompt": "a (cat:1.1)"},
        {"negative_prompt": "b b"},
        {"style": "a1111"},
        {"style": "comfy"},
        {"clip_skip": 1},
        {"weights_key": ("lora", 0.5)},
    ],
    ids=["prompt", "weight", "negative", "style", "another style", "clip_skip", "LoRAs"],
)
def test_whatever_changes_is_looked_up_anew(caching_encoder, change):
    asked = {"prompt": "a cat", "negative_prompt": "b", "style": "lpw", "clip_skip": 0}
    caching_encoder.encode(**asked)
    before = caching_encoder.counters.conditionings.hits
    caching_encoder.encode(**asked | change)
    assert caching_encoder.counters.conditionings.hits == before
    assert caching_encoder.counters.conditionings.entries == 2


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a Cat"},
        {"negative_prompt": "b "},
        {"prompt": parse("a cat")},
        {"clip_skip": None},
    ],
    ids=["case", "blank", "parsed", "clip_skip"],
)
def test_texts_that_are_read_alike_are_one_entry(caching_encoder, change):
    asked = {"prompt": "a cat", "negative_prompt": "b", "style": "lpw", "clip_skip": 0}
    assert caching_encoder.encode(**asked | change) is caching_encoder.encode(**asked)


def test_other_weights_are_other_windows(caching_encoder, read_windows):
    caching_encoder.encode("a", "b")
    read_windows.clear()
    caching_encoder.encode("a", "b", weights_key="lora")
    assert read_windows == [2, 2]
    caching_encoder.encode("b", "a", weights_key="lora")
    assert read_windows == [2, 2]


def test_clip_skip_none_is_zero(caching_encoder):
    assert caching_encoder.encode("a") is caching_encoder.encode("a", clip_skip=0)


def test_the_same_text_parsed_in_another_style_is_another_prompt(caching_encoder):
    lpw, plain = (
        caching_encoder.encode(parse("(a:1.5)", style=style), style="comfy")
        for style in (PromptStyle.LPW, PromptStyle.PLAIN)
    )
    assert not torch.allclose(lpw.prompt_embeds, plain.prompt_embeds, atol=1e-2)


def test_the_bound_holds_and_counts_what_is_held(encoder):
    bound = 200_000
    small = PromptEncoder(encoder._encoders, cache_bytes=bound)
    for number in range(40):
        small.encode(f"castle {number} " * 20, "b", "a1111")
        held = {
            storage.data_ptr(): storage.nbytes()
            for tensor in _tensors(small._conditionings._cache, small._windows._cache)
            for storage in [tensor.untyped_storage()]
        }
        counted = sum(counters.bytes for counters in small.counters)
        assert sum(held.values()) <= counted <= bound
    assert all(counters.entries > 0 for counters in small.counters)


def _tensors(conditionings: ByteCache, windows: ByteCache):
    for conditioning, _ in conditionings._entries.values():
        yield from conditioning.tensors
    for window, _ in windows._entries.values():
        yield from (tensor for tensor in window if tensor is not None)


def test_without_bytes_nothing_is_remembered(encoder, read_windows):
    for _ in range(2):
        encoder.encode("a", "b")
    assert read_windows == [2, 2] * 2
    assert [counters.entries for counters in encoder.counters] == [0, 0]


def test_hits_and_misses_are_counted(caching_encoder):
    caching_encoder.encode("a", "b")
    caching_encoder.encode("a", "b")
    caching_encoder.encode("a", "c")
    conditionings, windows = caching_encoder.counters
    assert (conditionings.hits, conditionings.misses) == (1, 2)
    assert (windows.hits, windows.misses) == (2, 6)  # of both encoders


def test_an_error_leaves_the_cache_usable(encoder, caching_encoder, monkeypatch):
    first = caching_encoder._encoders[0]
    monkeypatch.setattr(first, "encode", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        caching_encoder.encode("a", "b")
    monkeypatch.undo()
    assert same_bits(caching_encoder.encode("a", "b"), encoder.encode("a", "b"))


def test_an_empty_negative_prompt_is_not_one_without_text(caching_encoder):
    # Their trees are equal; in a1111 the first is zeros and the second is encoded.
    pairs = [caching_encoder.reader.read("a", text, "a1111") for text in ("", "()", "")]
    none, brackets, again = caching_encoder.encode_many(pairs)
    assert not none.negative_prompt_embeds.any()
    assert brackets.negative_prompt_embeds.any()
    assert same_bits(none, again)
