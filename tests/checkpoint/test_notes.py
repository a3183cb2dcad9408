"""What is kept of the author's notes: what the source states, else the header."""

from __future__ import annotations

import pytest

from lpw_sdxl.checkpoint.notes import header_notes
from lpw_sdxl.store.origin import AuthorNotes

from .conftest import header_of

STATED = AuthorNotes("Some Model v16.0", "Illustrious", ("one", "two"))
NOTES = {"modelspec.title": " A title ", "modelspec.trigger_phrase": " a phrase "}


def noted(**notes: str) -> AuthorNotes:
    return header_notes(header_of({}, **notes))


def test_what_the_source_states_goes_before_the_header():
    assert STATED.or_else(noted(**NOTES)) == STATED


def test_what_the_source_leaves_out_comes_from_the_header():
    notes = AuthorNotes(base_model="Pony").or_else(noted(**NOTES))
    assert notes == AuthorNotes("A title", "Pony", ("a phrase",))


def test_a_silent_header_gives_nothing():
    assert noted(**{"modelspec.trigger_phrase": "  "}) == AuthorNotes()


@pytest.mark.parametrize("key", NOTES)
def test_a_long_note_is_cut(key: str):
    notes = noted(**{key: "x" * 10_000})
    assert len(notes.title) + sum(map(len, notes.trained_words)) == 200


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\x07b", "a\u202eb"], ids=repr)
def test_a_note_is_one_printable_line(text: str):
    notes = noted(**{"modelspec.title": text, "modelspec.trigger_phrase": text})
    assert notes.title.isprintable()
    assert all(word.isprintable() for word in notes.trained_words)


def test_comfyuis_quotes_are_taken_off():
    assert noted(**{"modelspec.title": '"A title"'}).title == "A title"
