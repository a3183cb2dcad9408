"""What is kept of a checkpoint's origin: Civitai's word, else the header's."""

from __future__ import annotations

import pytest

from lpw_sdxl.checkpoint.notes import header_origin
from lpw_sdxl.download.civitai import CivitaiVersion
from lpw_sdxl.store.origin import Origin

from .conftest import header_of

VERSION = CivitaiVersion(
    version_id=128078,
    model_name="Some Model",
    version_name="v16.0",
    base_model="Illustrious",
    trained_words=("one", "two"),
    file_name="some.safetensors",
    size=1,
    sha256="0" * 64,
    download_url="https://civitai.com/api/download/models/128078?token=secret",
)
NOTES = {"modelspec.title": " A title ", "modelspec.trigger_phrase": " a phrase "}


def told(**notes: str) -> Origin:
    return header_origin(header_of({}, **notes))


def test_civitais_word_counts_before_the_headers():
    assert VERSION.origin.or_else(told(**NOTES)) == Origin(
        source="civitai:128078",
        title="Some Model v16.0",
        base_model="Illustrious",
        trained_words=("one", "two"),
    )


def test_without_civitai_the_header_is_asked():
    assert Origin("https://example.org/a").or_else(told(**NOTES)) == Origin(
        source="https://example.org/a",
        title="A title",
        base_model="",
        trained_words=("a phrase",),
    )


def test_a_silent_header_gives_nothing():
    origin = told(**{"modelspec.trigger_phrase": "  "})
    assert origin == Origin(origin.source)


def test_no_key_and_no_query_is_kept():
    assert "secret" not in repr(VERSION.origin)
    assert "secret" not in repr(VERSION)


@pytest.mark.parametrize("key", NOTES)
def test_a_long_note_is_cut(key: str):
    origin = told(**{key: "x" * 10_000})
    assert len(origin.title) + sum(map(len, origin.trained_words)) == 200


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\x07b", "a\u202eb"], ids=repr)
def test_a_note_is_one_printable_line(text: str):
    origin = told(**{"modelspec.title": text, "modelspec.trigger_phrase": text})
    assert origin.title.isprintable()
    assert all(word.isprintable() for word in origin.trained_words)


def test_comfyuis_quotes_are_taken_off():
    assert told(**{"modelspec.title": '"A title"'}).title == "A title"
