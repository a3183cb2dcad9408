"""What the inputs of jobs mean, and what of them is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lpw_sdxl.doors.runpod.fields import KNOWN, SPELLINGS
from lpw_sdxl.doors.runpod.translation import JobOrder, translate
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import GenerationRequest, ImageSize
from runpod_inputs import OLD_INPUTS, OldInput

LIMITS = RequestLimits(1000, 150, ImageSize(height=2048, width=2048), 64, 10, 100)


def order(**fields: Any) -> JobOrder:
    return translate({"prompt": "a fox"} | fields, LIMITS)


def test_there_are_more_than_forty_old_inputs() -> None:
    assert len([one for one in OLD_INPUTS.values() if one.meaning]) >= 30
    assert len(OLD_INPUTS) >= 40


@pytest.mark.parametrize("old", OLD_INPUTS.values(), ids=OLD_INPUTS.keys())
def test_an_old_input_means_what_its_names_meant_or_is_refused_by_field(old: OldInput) -> None:
    if old.meaning is None:
        with pytest.raises(InvalidRequestError) as refusal:
            translate(old.input, LIMITS)
        assert refusal.value.field == old.field
        assert old.words in refusal.value.message
        return
    requests = translate(old.input, LIMITS).requests
    assert [*requests] == [
        GenerationRequest.model_validate({"prompt": "a fox", **one}) for one in old.meaning
    ]


@pytest.mark.parametrize("value", [None, "a fox", ["a fox"], 7])
def test_an_input_is_an_object(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="would be right") as refusal:
        translate(value, LIMITS)
    assert refusal.value.field == "input"


def test_every_field_of_our_own_is_one_of_an_input() -> None:
    assert set(GenerationRequest.model_fields) < set(KNOWN)
    own = {"prompt_style": "a1111", "image_format": "webp", "clip_skip": 1, "seed": 3}
    assert order(**own).requests == (GenerationRequest(prompt="a fox", **own),)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_inference_steps", 7),
        ("guidance_scale", 0.5),
        ("image_format", "jpeg"),
        ("loras", ["ink"]),
        ("sampler_name", "Heun"),
        ("num_images", 2),
    ],
)
def test_every_spelling_means_the_same(field: str, value: Any) -> None:
    first, *others = (order(seed=1, **{one: value}) for one in SPELLINGS[field])
    assert first != order(seed=1)
    assert all(one == first for one in others)


def test_pictures_come_as_base64_or_as_data_urls() -> None:
    picture = base64.b64encode(b"of a picture").decode()
    fields = {"image": picture, "mask": f"data:image/png;base64,{picture}", "denoising_strength": 1}
    (request,) = order(**fields).requests
    assert (request.image, request.mask_image) == (b"of a picture", b"of a picture")
    assert request.strength == 1.0


def test_a_picture_may_be_too_large() -> None:
    picture = base64.b64encode(bytes(101)).decode()
    with pytest.raises(InvalidRequestError, match="smaller file") as refusal:
        order(image=picture)
    assert refusal.value.field == "image"


def test_reports_are_asked_for_by_a_switch_or_by_their_previews() -> None:
    assert not order().has_progress
    assert order(progress=True).has_progress
    both = order(preview_every=5)
    assert (both.has_progress, both.preview_every) == (True, 5)


def test_several_images_with_one_name_have_a_name_each() -> None:
    requests = order(request_id="mine", num_images=2).requests
    assert [one.request_id for one in requests] == ["mine-0", "mine-1"]
