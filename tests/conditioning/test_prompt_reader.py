"""Texts to read prompts: what they count, name, refuse and take of memory."""

import sys
from collections import Counter
from dataclasses import replace
from enum import Enum

import pytest
import torch

from lpw_sdxl.conditioning import PromptEncoder, prompt_reader
from lpw_sdxl.conditioning.conditioning_cache import ConditioningKey
from lpw_sdxl.conditioning.embeddings import Embedding
from lpw_sdxl.errors import InvalidPromptError, InvalidRequestError
from lpw_sdxl.prompt import PromptStyle, parse

WORDS = "a (castle:1.3) on a hill, " * 25 + "wow!!! BREAK <lora:x:1> sea"
QUEUED_JOBS = 256
QUEUED_MEGABYTES = 50


@pytest.fixture(scope="module")
def reader(encoder):
    return replace(encoder.reader, max_chunks=64)


@pytest.fixture
def embedding_reader(model_directory):
    vectors = (torch.zeros(8, 32), torch.zeros(8, 48))
    names = ["Glow", "ink"]
    return PromptEncoder.from_model_directory(
        model_directory, embeddings=[Embedding(name, vectors) for name in names]
    ).reader


@pytest.mark.parametrize("style", PromptStyle)
def test_what_is_counted_is_what_is_encoded(encoder, reader, style):
    read = reader.read(WORDS, "blurry", style)
    conditioning = encoder.encode(WORDS, "blurry", style)
    for text, embeds in zip(read.texts, conditioning.tensors[:2], strict=True):
        assert sum(window.length for window in text.chunks[0].windows) == len(embeds)
        assert text.chunk_count == -(-len(embeds) // 77)
    assert [text.token_count for text in read.texts] == [
        one.token_count
        for explained in [reader.explain(WORDS, "blurry", style)]
        for one in (explained.prompt, explained.negative_prompt)
    ]
    assert read.style is style


@pytest.mark.parametrize("style", PromptStyle)
def test_a_prompt_is_parsed_and_chunked_once(encoder, caching_encoder, style, monkeypatch):
    calls = Counter()
    for name in ("parse", "chunk_for_encoders"):
        function = getattr(prompt_reader, name)

        def count(*arguments, name=name, function=function, **keywords):
            calls[name] += 1
            return function(*arguments, **keywords)

        monkeypatch.setattr(prompt_reader, name, count)
    once = {"parse": 2, "chunk_for_encoders": 1}
    for work in (
        encoder.reader.read,
        encoder.reader.explain,
        encoder.encode,
        caching_encoder.encode,
    ):
        calls.clear()
        work(WORDS, "blurry", style)
        assert calls == once


@pytest.mark.parametrize("style", [style for style in PromptStyle if style != "plain"])
@pytest.mark.parametrize("tag", ["<lora:x:1e1>", "<LyCo:x:te=1:unet=2>", "<lora:sea:.5:2>"])
def test_no_encoder_reads_a_tag(reader, style, tag):
    tagged, without = (reader.read(f"a castle{one}, sea", style=style) for one in (tag, ""))
    assert tagged.prompt.chunks == without.prompt.chunks


@pytest.mark.parametrize("style", [style for style in PromptStyle if style != "plain"])
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_refused_tag_is_explained_and_not_encoded(encoder, reader, style, field):
    texts = {"prompt": "a", field: "a sea<lora:x:dyn=1><hypernet:secret>"}
    part = r"character 5 has the part dyn="
    for read in (reader.read, encoder.encode):
        with pytest.raises(InvalidPromptError, match=part) as caught:
            read(**texts, style=style)
        assert caught.value.field == field
    explained = getattr(reader.explain(**texts, style=style), field)
    assert explained.warnings == (
        f"no image is made of it: {caught.value.message} (1 more of its tags can't be used)",
    )
    assert explained.token_count == 2


def test_a_parsed_prompt_is_read_as_its_text(reader):
    parsed = reader.parse(WORDS, "dog", PromptStyle.A1111)
    assert reader.parse(*parsed, PromptStyle.A1111) == parsed
    assert reader.read(*parsed, "a1111", 1) == reader.read(WORDS, "dog", "a1111", 1)


def test_equal_prompts_of_another_style_or_clip_skip_are_others(reader):
    styles = {reader.read("cat", "dog", style) for style in PromptStyle}
    assert len(styles) == len(PromptStyle)
    assert len({reader.read("cat", "dog", clip_skip=skip) for skip in (None, 0, 1, 2)}) == 3


@pytest.mark.parametrize("clip_skip", [-1, 4, 100])
def test_clip_skip_is_refused_before_anything_is_parsed(reader, clip_skip, monkeypatch):
    monkeypatch.setattr(prompt_reader, "parse", None)
    with pytest.raises(InvalidRequestError, match=f"clip_skip is {clip_skip}; this .* 0 to 3") as e:
        reader.read("a", clip_skip=clip_skip)
    assert e.value.field == "clip_skip"


@pytest.mark.parametrize(("text", "is_empty"), [("", True), ("()", False), (" ", False)])
def test_only_a_text_of_nothing_is_empty(reader, text, is_empty):
    read = reader.read("a", text)
    assert read.negative_prompt.is_empty is is_empty
    assert read.negative_prompt.token_count == 0
    assert not read.prompt.is_empty


@pytest.mark.parametrize("style", PromptStyle)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_one_chunk_too_many_is_refused_by_its_field(encoder, style, field):
    strict = replace(encoder.reader, max_chunks=2)
    texts = {"prompt": "a", field: "cat " * 150}
    assert getattr(strict.read(**texts, style=style), field).chunk_count == 2
    with pytest.raises(InvalidPromptError, match=f"{field} fills 3 chunks of 75") as caught:
        strict.read(**texts | {field: "cat " * 151}, style=style)
    assert caught.value.field == field


def test_without_a_limit_any_number_of_chunks_is_read(encoder):
    assert encoder.reader.read("cat " * 6000).prompt.chunk_count == 80


@pytest.mark.parametrize(
    ("style", "names"), [("lpw", ("Glow", "ink")), ("comfy", ("Glow",)), ("plain", ("Glow", "ink"))]
)
def test_embeddings_of_both_texts_are_named_once(embedding_reader, style, names):
    read = embedding_reader.read("embedding:GLOW glow", "INK, embedding:glow ink", style)
    assert tuple(one.name for one in read.embeddings) == names
    assert embedding_reader.read("a", "b", style).embeddings == ()


def test_equal_windows_are_one_object(reader):
    read = reader.read("snow " * 600, "blurry")
    windows = [w for text in read.texts for chunks in text.chunks for w in chunks.windows]
    assert len(windows) == 32
    assert len({id(window) for window in windows}) == len(set(windows)) == 3


@pytest.mark.parametrize("style", ["lpw", "a1111", "comfy"])
def test_what_is_read_counts_at_least_the_bytes_that_it_keeps(embedding_reader, style):
    for prompt in ("", "a cat", "(a:1.2) embedding:glow", WORDS, _longest("sea", "1.{place}")):
        key = ConditioningKey(embedding_reader.read(prompt, WORDS, style), (("0" * 64, 0.5),))
        kept = _bytes_of(key)
        assert kept <= key.nbytes
    assert key.nbytes <= 2.2 * kept  # of windows that hardly ever occur twice


def _bytes_of(thing, seen=None):
    """Bytes of all that a value keeps alive, each object once; integers and enums are shared."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, int | Enum):
        return 0
    seen.add(id(thing))
    parts = (
        thing
        if isinstance(thing, tuple)
        else [getattr(thing, name) for name in getattr(type(thing), "__slots__", ())]
    )
    return sys.getsizeof(thing) + sum(_bytes_of(part, seen) for part in parts)


@pytest.mark.parametrize("style", ["lpw", "a1111", "comfy"])
@pytest.mark.parametrize("weight", ["1", "1.{place}"], ids=["plain", "weighted"])
def test_a_full_queue_of_the_longest_prompts_takes_tens_of_megabytes(reader, style, weight):
    read = reader.read(_longest("sea", weight), _longest("fox", weight), style)
    for text in read.texts:
        assert text.chunk_count == 64
        assert text.token_count == 64 * 75
    assert QUEUED_JOBS * _bytes_of(read.texts) < QUEUED_MEGABYTES * 1e6


def _longest(word, weight):
    """64 full chunks, no two alike; the encoders' windows differ too, by their tokens for `!`."""
    return "".join(
        f"({place} {f'{word} ' * 72}!:{weight.format(place=place)}) " for place in range(11, 75)
    )


def test_no_tree_is_kept(reader):
    text = "\\ " * 15_000  # two nodes a blank, and no token
    assert len(parse(text).pieces) == 30_000
    assert reader.read(text).nbytes < 5_000
