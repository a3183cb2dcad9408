"""A model's own defaults: what can be one, and which of them a request gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.model_defaults import (
    DEFAULT_FIELDS,
    ModelDefaults,
    read_assignments,
    write_assignment,
)
from lpw_sdxl.request_limits import RequestLimits, check_defaults, check_limits
from lpw_sdxl.schema import GenerationRequest, InspectionRequest, StreamRequest
from lpw_sdxl.settings import Settings

PICTURE = b"a picture's bytes"
LIGHTNING = ModelDefaults.read(
    {"num_inference_steps": 6, "guidance_scale": 1.5, "scheduler": "Euler"}
    | {"schedule_type": "trailing", "negative_prompt": "bad", "clip_skip": 1}
)


def filled(defaults: dict[str, Any], **fields: Any) -> GenerationRequest:
    return ModelDefaults.read(defaults).fill(GenerationRequest(prompt="a", **fields))


def test_what_is_left_out_is_filled_in_and_what_is_said_stays() -> None:
    request = LIGHTNING.fill(GenerationRequest(prompt="a", guidance_scale=5, clip_skip=None))
    assert (request.num_inference_steps, request.scheduler) == (6, "Euler")
    assert (request.schedule_type, request.negative_prompt) == ("trailing", "bad")
    assert (request.guidance_scale, request.clip_skip) == (5, None)
    assert request.model_fields_set == {"prompt", "guidance_scale", "clip_skip"}


def test_filling_twice_makes_no_difference() -> None:
    once = LIGHTNING.fill(GenerationRequest(prompt="a"))
    assert LIGHTNING.fill(once) == once
    assert ModelDefaults().fill(once) is once


def test_a_stream_stays_one_and_an_inspection_gets_the_fields_that_it_has() -> None:
    stream = LIGHTNING.fill(StreamRequest(prompt="a", preview_every=2))
    assert isinstance(stream, StreamRequest)
    assert (stream.preview_every, stream.num_inference_steps) == (2, 6)
    inspection = LIGHTNING.fill(InspectionRequest(prompt="a"))
    assert (inspection.num_inference_steps, inspection.negative_prompt) == (6, "bad")
    assert not inspection.has_own_steps


@pytest.mark.parametrize(
    ("defaults", "fields", "field", "expected"),
    [
        # A schedule type, where the scheduler that a request names takes it.
        ({"schedule_type": "linspace"}, {"scheduler": "Heun"}, "schedule_type", "linspace"),
        ({"schedule_type": "linspace"}, {"scheduler": "DDIM"}, "schedule_type", None),
        ({"schedule_type": "trailing"}, {"scheduler": "DPM++ 2M Karras"}, "schedule_type", None),
        ({"schedule_type": "trailing"}, {"scheduler": "LCM"}, "schedule_type", None),
        (
            {"scheduler": "LCM", "schedule_type": "trailing"},
            {"scheduler": "LCM"},
            "schedule_type",
            "trailing",
        ),
        # A sampler, where its family is the request's.
        ({"scheduler": "Euler"}, {"sampler_implementation": "k_diffusion"}, "scheduler", None),
        (
            {"sampler_implementation": "k_diffusion", "eta": 0.5, "scheduler": "Euler a"},
            {"sampler_implementation": "diffusers"},
            "eta",
            None,
        ),
        (
            {"sampler_implementation": "k_diffusion", "noise_source": "nv"},
            {},
            "noise_source",
            "nv",
        ),
        # Fields about a picture, where there is one; the size is then the picture's.
        ({"strength": 0.5}, {}, "strength", 0.75),
        ({"strength": 0.5}, {"image": PICTURE}, "strength", 0.5),
        ({"mask_blur": 4.0}, {"image": PICTURE}, "mask_blur", 0.0),
        ({"mask_blur": 4.0}, {"image": PICTURE, "mask_image": PICTURE}, "mask_blur", 4.0),
        ({"width": 512, "height": 512}, {"image": PICTURE}, "width", None),
        ({"width": 512, "height": 512}, {"height": 640}, "width", 512),
    ],
)
def test_a_default_that_does_not_fit_the_request_is_left_out(
    defaults: dict[str, Any], fields: dict[str, Any], field: str, expected: object
) -> None:
    request = filled(defaults, **fields)
    assert getattr(request, field) == expected
    check_limits(request, RequestLimits.from_settings(Settings(max_width=2048, max_height=2048)))


@pytest.mark.parametrize(
    ("written", "field", "words"),
    [
        ({"steps": 4}, "steps", "did you mean"),
        ({"num_inference_step": 4}, "num_inference_step", "did you mean num_inference_steps?"),
        ({"guidance_scale": 101}, "guidance_scale", "at most 100 would be right"),
        ({"guidance_scale": "much"}, "guidance_scale", "a number would be right"),
        ({"num_inference_steps": 0}, "num_inference_steps", "at least 1 would be right"),
        ({"scheduler": "Eulr"}, "scheduler", "Euler"),
        ({"width": 1023}, "width", "a multiple of 8 would be right"),
        ({"seed": 7}, "seed", "belongs to one picture"),
        ({"prompt": "a"}, "prompt", "belongs to one picture"),
        ({"loras": []}, "loras", "belongs to one picture"),
        ({"image": "AAAA"}, "image", "belongs to one picture"),
    ],
)
def test_what_can_be_no_default_is_refused_by_its_field(
    written: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ModelDefaults.read(written)
    assert caught.value.field == field
    assert words in caught.value.message or field == "steps"


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ({"eta": 0.5}, "eta"),
        ({"noise_source": "nv"}, "noise_source"),
        ({"scheduler": "DDIM", "schedule_type": "linspace"}, "schedule_type"),
        ({"scheduler": "LCM", "num_inference_steps": 51}, "num_inference_steps"),
    ],
)
def test_defaults_that_do_not_fit_each_other_are_refused(
    written: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_defaults(ModelDefaults.read(written))
    assert caught.value.field == field


def test_every_setting_can_be_written_and_read() -> None:
    values = {
        "negative_prompt": 'bad, "worse" = 1',
        "width": 832,
        "height": 1216,
        "num_inference_steps": 8,
        "guidance_scale": 1.5,
        "guidance_rescale": 0.7,
        "guidance_interval": [0.2, 0.8],
        "sampler_implementation": "k_diffusion",
        "scheduler": "DPM++ 2M SDE",
        "schedule_type": "Karras",
        "eta": 0.5,
        "noise_source": "nv",
        "timestep_rounding": "interpolate",
        "eta_noise_seed_delta": 31337,
        "prompt_style": "a1111",
        "clip_skip": 1,
        "image_format": "jpeg",
        "strength": 0.6,
        "resize_mode": "crop",
        "mask_blur": 4.0,
        "masked_content": "fill",
        "only_masked_padding": 16,
        "paste_back": False,
    }
    assert {*values} == {*DEFAULT_FIELDS}
    texts = [write_assignment(*one) for one in values.items()]
    defaults = ModelDefaults.read(read_assignments(texts))
    check_defaults(defaults)
    assert defaults.as_json() == values
    assert ModelDefaults.read(json.loads(json.dumps(defaults.as_json()))) == defaults


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("negative_prompt=12", "12"),
        ("negative_prompt=null", "null"),
        ("negative_prompt=a=b", "a=b"),
        ("negative_prompt=", ""),
        ('negative_prompt="quoted"', "quoted"),
        ("guidance_scale= 2 ", 2),
        ("scheduler=Euler a", "Euler a"),
        ("clip_skip=null", None),
    ],
)
def test_a_value_is_json_or_else_a_text(text: str, value: object) -> None:
    assert [*read_assignments([text]).values()] == [value]


@pytest.mark.parametrize("texts", [["guidance_scale"], ["a=1", "a=2"]])
def test_a_text_that_is_no_assignment_is_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        read_assignments(texts)
