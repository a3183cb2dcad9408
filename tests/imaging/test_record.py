"""The text is read back by a reader of the published layout, written for these tests."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl import __version__
from lpw_sdxl.imaging import ImageRecord, parameters_text
from lpw_sdxl.schema import GenerationRequest, ImageSize, SchedulerName

# A pair of the last line: a key, and a JSON string or all up to the next comma.
PAIR = re.compile(r'(?P<key>\w[\w /-]+): (?P<value>"(?:[^"\\]|\\.)*"|[^,"]*)(?:, |$)')


@dataclass(frozen=True)
class Parameters:
    """What another program reads out of the text."""

    prompt: str
    negative_prompt: str
    pairs: dict[str, str]


def read(text: str) -> Parameters:
    """Read the layout; every character of the last line must belong to a pair."""
    words, _, last = text.rpartition("\n")
    prompt, _, negative = words.partition("\nNegative prompt: ")
    matches = list(PAIR.finditer(last))
    assert "".join(match.group() for match in matches) == last
    values = {match["key"]: match["value"] for match in matches}
    assert len(values) == len(matches)
    pairs = {
        key: json.loads(value) if value.startswith('"') else value for key, value in values.items()
    }
    return Parameters(prompt, negative, pairs)


def record(**fields: object) -> ImageRecord:
    return ImageRecord(
        request=GenerationRequest.model_validate({"prompt": "a (cat:1.2)", **fields}),
        seed=2**64 - 1,
        size=ImageSize(height=16, width=24),
        scheduler=SchedulerName.DPMPP_2M_KARRAS,
        model_name="sdxl",
        model_sha256="0123456789abcdef" * 4,
    )


def test_every_field_is_read_back() -> None:
    made = record(
        prompt="a (cat:1.2), [dog]\nBREAK a h\u00e9ron, \u732b",
        negative_prompt="blurry, text: none\nbad",
        num_inference_steps=12,
        guidance_scale=7.5,
        guidance_rescale=0.7,
        clip_skip=1,
        prompt_style="a1111",
    )
    assert read(parameters_text(made)) == Parameters(
        prompt="a (cat:1.2), [dog]\nBREAK a h\u00e9ron, \u732b",
        negative_prompt="blurry, text: none\nbad",
        pairs={
            "Steps": "12",
            "Sampler": "DPM++ 2M Karras",
            "CFG scale": "7.5",
            "Seed": str(2**64 - 1),
            "Size": "24x16",
            "Model hash": "0123456789",
            "Model": "sdxl",
            "CFG rescale": "0.7",
            "Clip skip": "3",
            "Prompt style": "a1111",
            "Version": f"LPW-SDXL {__version__}",
        },
    )


def test_what_was_not_asked_for_leaves_no_trace() -> None:
    text = parameters_text(record())
    assert "Negative prompt" not in text
    assert list(read(text).pairs) == [
        "Steps", "Sampler", "CFG scale", "Seed", "Size", "Model hash", "Model", "Prompt style",
        "Version",
    ]  # fmt: skip


NAMES = {
    "comma": "portraits, second edition",
    "colon": "studio: night",
    "line": "two\nlines",
    "quotes": 'the "real" one',
    "backslash": "c:\\models\\x",
    "all": '"a, b": \\\n\u732b"',
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_value_with_the_layouts_own_marks_is_quoted(name: str) -> None:
    pairs = read(parameters_text(replace(record(), model_name=name))).pairs
    assert pairs["Model"] == name
    assert pairs["Version"] == f"LPW-SDXL {__version__}"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_value_is_read_back(name: str) -> None:
    assert read(parameters_text(replace(record(), model_name=name))).pairs["Model"] == name


@pytest.mark.parametrize("scheduler", SchedulerName)
def test_a_scheduler_is_one_name(scheduler: SchedulerName) -> None:
    pairs = read(parameters_text(replace(record(), scheduler=scheduler))).pairs
    assert pairs["Sampler"] == scheduler
    assert "Schedule type" not in pairs
