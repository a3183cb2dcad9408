"""What is kept of a checkpoint's origin: Civitai's word, else the header's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lpw_sdxl.checkpoint.provenance import Provenance, provenance_of
from lpw_sdxl.download.civitai import CivitaiVersion

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


def test_civitais_word_counts_before_the_headers():
    assert provenance_of("civitai:128078", NOTES, VERSION) == Provenance(
        source="civitai:128078",
        title="Some Model v16.0",
        base_model="Illustrious",
        trained_words=("one", "two"),
    )


def test_without_civitai_the_header_is_asked():
    assert provenance_of("file:a.safetensors", NOTES) == Provenance(
        source="file:a.safetensors",
        title="A title",
        base_model="SDXL 1.0",
        trained_words=("a phrase",),
    )


def test_a_silent_header_gives_nothing():
    assert provenance_of("demo", {"modelspec.trigger_phrase": "  "}) == Provenance(source="demo")


def test_an_unknown_family_is_sdxls():
    version = replace(VERSION, base_model="", version_name="")
    provenance = provenance_of("civitai:1", {}, version)
    assert (provenance.base_model, provenance.title) == ("SDXL 1.0", "Some Model")


def test_no_key_and_no_query_is_kept():
    assert "secret" not in repr(provenance_of("civitai:128078", {}, VERSION))
    assert "secret" not in repr(VERSION)


@pytest.mark.parametrize("key", NOTES)
def test_a_long_note_is_cut(key: str):
    provenance = provenance_of("demo", {key: "x" * 10_000})
    assert len(provenance.title) + sum(map(len, provenance.trained_words)) == 200


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\x07b", "a\u202eb"], ids=repr)
def test_a_note_is_one_printable_line(text: str):
    provenance = provenance_of("demo", {"modelspec.title": text, "modelspec.trigger_phrase": text})
    assert provenance.title.isprintable()
    assert all(word.isprintable() for word in provenance.trained_words)


def test_comfyuis_quotes_are_taken_off():
    assert provenance_of("demo", {"modelspec.title": '"A title"'}).title == "A title"
