"""Texts of all shapes are read as the request that makes their pictures again."""

from __future__ import annotations

import pytest

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.parameters import read_text, to_request
from lpw_sdxl.schema import GenerationRequest
from tests.parameters import a1111_texts, fork_texts, odd_texts, page_texts
from tests.parameters.case import LIMITS, OFFERED, Case

CASES = [*a1111_texts.CASES, *fork_texts.CASES, *page_texts.CASES, *odd_texts.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_text_is_read_as_its_request(case: Case) -> None:
    translation = to_request(read_text(case.text), OFFERED, LIMITS)
    assert translation.fields == case.fields
    assert [one.name for one in translation.not_honoured] == [*case.missed]
    if case.values is not None:
        assert [one.value for one in translation.not_honoured] == [*case.values]
    for one in translation.not_honoured:
        assert one.reason.endswith(".")
        assert not one.reason.endswith("..")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_fields_are_a_request_as_json(case: Case) -> None:
    translation = to_request(read_text(case.text), OFFERED, LIMITS)
    assert GenerationRequest.model_validate(translation.fields) == translation.request


@pytest.mark.parametrize(
    ("text", "reason"), odd_texts.REFUSED.values(), ids=odd_texts.REFUSED.keys()
)
def test_what_is_no_such_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as refusal:
        to_request(read_text(text), OFFERED, LIMITS)
    assert refusal.value.field == "parameters"


def test_there_are_many_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 80


def test_notes_are_bounded() -> None:
    text = "a\nSteps: 2, Seed: 1" + "".join(f", key {number}: {number}" for number in range(300))
    notes = to_request(read_text(text), OFFERED, LIMITS).not_honoured
    assert len(notes) == 100
    assert (notes[-1].name, notes[-1].value) == ("more", "202")  # with the one of missing keys


def test_a_long_value_is_cut() -> None:
    text = f"a\nSteps: 2, Seed: 1, Script: {'x' * 1000}"
    notes = to_request(read_text(text), OFFERED, LIMITS).not_honoured
    assert notes[0].value == "x" * 197 + "..."


def test_without_a_server_no_name_is_looked_up() -> None:
    text = "<lora:zzz:1> a\nSteps: 999, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 4096x4096, "
    translation = to_request(read_text(text + "Model: other, TI hashes: x: 0011"))
    assert translation.not_honoured == ()
    assert translation.fields["prompt"] == "<lora:zzz:1> a"
    assert translation.fields["num_inference_steps"] == 999
    assert translation.fields["width"] == 4096
