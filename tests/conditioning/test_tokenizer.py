"""Our use of the tokenizer, against Transformers' own call."""

import logging

import pytest
from transformers import CLIPTokenizer

from lpw_sdxl.conditioning.tokenizer import ClipTokenizer


@pytest.fixture(scope="module")
def reference(model_directory):
    return CLIPTokenizer.from_pretrained(model_directory / "tokenizer")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "A cat,  on\na mat",
        "ünïcödé 猫 🐈",
        "don't 1girl :3 ^_^",
        "\x00\x01\x7f\u200b\ufffd",
        "a <|endoftext|> b",
        "<|startoftext|>x",
        "e\u0301 ﬁ İ",
    ],
)
def test_ids_are_those_of_transformers_without_bos_and_eos(tokenizer, reference, text):
    assert tokenizer.ids(text) == reference(text, truncation=False).input_ids[1:-1]


def test_special_ids_come_from_the_tokenizer(tokenizer, model_directory):
    assert tokenizer.special == (49406, 49407, 49407)
    second = ClipTokenizer.from_directory(model_directory / "tokenizer_2")
    assert second.special == (49406, 49407, 0)
    assert tokenizer.size == 49408


def test_long_text_is_neither_cut_nor_warned_of(tokenizer, caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        assert len(tokenizer.ids("cat " * 500)) == 500
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


def test_saved_truncation_and_padding_are_undone(model_directory, tmp_path):
    saved = CLIPTokenizer.from_pretrained(model_directory / "tokenizer")
    saved(["a"], padding="max_length", truncation=True, max_length=5)
    saved.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    loaded = ClipTokenizer.from_directory(tmp_path)
    assert len(loaded.ids("cat " * 10)) == 10
    assert len(loaded.ids("cat")) == 1


def test_text_of_ids_is_what_the_encoder_reads(tokenizer):
    assert tokenizer.text(tokenizer.ids("A cat,\n猫 <|endoftext|>!")) == "a cat , 猫 !"
