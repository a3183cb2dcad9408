"""CLIP's tokenizer files: the right vocabulary, the same bytes, loaded by Transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from lpw_sdxl.checkpoint.tokenizer_files import (
    END_TOKEN,
    START_TOKEN,
    build_vocabulary,
    read_merges,
    write_tokenizer,
)


def test_vocabulary_has_clips_known_ids():
    vocabulary = build_vocabulary(read_merges())
    # Ids that OpenAI's CLIP gives: first byte, first byte at a word's end, "a", "cat", "photo".
    known = {"!": 0, "!</w>": 256, "a</w>": 320, "cat</w>": 2368, "photo</w>": 1125}
    assert {token: vocabulary[token] for token in known} == known
    assert len(vocabulary) == 49408
    assert sorted(vocabulary.values()) == list(range(49408))
    assert (vocabulary[START_TOKEN], vocabulary[END_TOKEN]) == (49406, 49407)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        write_tokenizer(tmp_path / name, pad_token="!")
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(("pad_token", "pad_id"), [(END_TOKEN, 49407), ("!", 0)])
def test_transformers_loads_it(tmp_path: Path, pad_token: str, pad_id: int):
    write_tokenizer(tmp_path, pad_token=pad_token)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (pad_id, 77)
    assert len(tokenizer) == 49408
    ids = tokenizer("a photo of a CAT", padding="max_length", max_length=9).input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407, pad_id, pad_id]


def test_text_beyond_ascii_keeps_every_byte(tmp_path: Path):
    write_tokenizer(tmp_path, pad_token=END_TOKEN)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    text = "naïve 日本 🦊"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 77
