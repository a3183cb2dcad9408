"""The loose requests of OpenAI's clients, and what is refused all the same."""

from __future__ import annotations

from typing import Any

import pytest

from lpw_sdxl.doors.openai.fields import join_parts, read_fields, without_empty
from lpw_sdxl.doors.openai.multipart import Part, PartBounds
from lpw_sdxl.doors.openai.spellings import OPENAI_FIELDS, PASSED_ON, SPELLINGS
from lpw_sdxl.doors.openai.translation import ImageOrder, translate
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.schema import GenerationRequest, ImageSize

LIMITS = RequestLimits(1000, 50, ImageSize(height=2048, width=1536), 64, 10, 100)
NATIVE = ImageSize(1024, 1024)
BOUNDS = PartBounds(text=1000, file=1000)
K_DIFFUSION = {"sampler_implementation": "k_diffusion"}
PICTURE = b"of a picture"
DATA_URL = "data:image/png;base64,b2YgYSBwaWN0dXJl"


def order(*, is_edit: bool = False, **fields: Any) -> ImageOrder:
    wanted = without_empty({"prompt": "a"} | fields)
    return translate(wanted, LIMITS, NATIVE, is_edit=is_edit)


def drawn(**fields: Any) -> dict[str, Any]:
    """What a request asks for beyond its prompt."""
    request = order(**fields).requests[0]
    return request.model_dump(exclude_defaults=True, exclude={"prompt"})


def refusal(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequestError) as refused:
        order(**fields)
    return refused.value.field, refused.value.message


@pytest.mark.parametrize("field", ["num_inference_steps", "guidance_scale", "negative_prompt"])
def test_every_spelling_means_the_same(field: str) -> None:
    for spelling in SPELLINGS[field]:
        assert drawn(**{spelling: "7"}) == {field: "7" if field == "negative_prompt" else 7}


def test_the_first_spelling_counts() -> None:
    assert drawn(true_cfg_scale=4, guidance_scale=6) == {"guidance_scale": 6}
    assert drawn(steps=None, num_inference_steps=9) == {"num_inference_steps": 9}


def test_every_field_of_ours_can_be_sent() -> None:
    named = {*SPELLINGS, *PASSED_ON, *OPENAI_FIELDS, "image_format", "mask_image"}
    assert named >= set(GenerationRequest.model_fields)
    assert drawn(prompt_style="a1111", guidance_rescale="0.5", clip_skip=1) == {
        "prompt_style": "a1111",
        "guidance_rescale": 0.5,
        "clip_skip": 1,
    }


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (None, None)),
        ({"size": "auto"}, (None, None)),
        ({"size": "1024x1536"}, (1024, 1536)),
        ({"size": " 1020 X 1533 "}, (1024, 1536)),
        ({"size": "1x1"}, (64, 64)),
        ({"size": "512x512", "width": 768}, (768, 512)),
        ({"width": "333", "height": 2e2}, (336, 200)),
    ],
)
def test_sizes_are_read_and_rounded(fields: dict[str, Any], size: tuple[int, int]) -> None:
    request = order(**fields).requests[0]
    assert (request.width, request.height) == size


@pytest.mark.parametrize(
    ("quality", "steps"),
    [("low", 15), ("medium", 30), ("auto", 30), ("HD", 45), ("max", 50), ("odd", 30)],
)
def test_quality_is_a_number_of_steps(quality: str, steps: int) -> None:
    made = order(quality=quality)
    assert made.requests[0].num_inference_steps == steps, "at most the server's"
    assert bool(made.notes) == (quality == "odd")
    assert order(quality=quality, steps=3).requests[0].num_inference_steps == 3


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({}, {}),
        ({"sampler": "auto", "scheduler": "Automatic"}, {}),
        ({"scheduler": "euler_a"}, {"scheduler": "Euler a"}),
        ({"sampler": "dpmpp_2m", "scheduler": "karras"}, {"scheduler": "DPM++ 2M Karras"}),
        ({"scheduler": "DPM++ 2M Karras"}, {"scheduler": "DPM++ 2M Karras"}),
        ({"scheduler": "sgm_uniform"}, {"schedule_type": "trailing"}),
        ({"scheduler": "karras"}, K_DIFFUSION | {"schedule_type": "Karras"}),
        ({"samplerName": "Restart"}, K_DIFFUSION | {"scheduler": "Restart"}),
        (
            {"sampler_name": "Euler a", "scheduler": "normal"},
            K_DIFFUSION | {"scheduler": "Euler a", "schedule_type": "Normal"},
        ),
        (
            {"scheduler": "Euler", "sampler_implementation": "k_diffusion"},
            K_DIFFUSION | {"scheduler": "Euler"},
        ),
    ],
)
def test_samplers_are_found_in_whichever_family_has_them(
    fields: dict[str, Any], sampling: dict[str, Any]
) -> None:
    assert drawn(**fields) == sampling


@pytest.mark.parametrize(
    ("value", "loras"),
    [
        ([{"name": "a", "weight": 0.5}], [("a", 0.5)]),
        ({"lora_name": "a", "lora_scale": "-1"}, [("a", -1)]),
        ('[{"path": "x/a.safetensors", "multiplier": 2}, "b"]', [("a", 2), ("b", 1)]),
        ("a", [("a", 1)]),
    ],
)
def test_loras_are_read_in_every_form(value: Any, loras: list[tuple[str, float]]) -> None:
    for field in ("loras", "lora"):
        request = order(**{field: value}).requests[0]
        assert [(one.name, one.weight) for one in request.loras] == loras


def test_several_images_differ_by_their_seeds() -> None:
    def seeds(**fields: Any) -> list[int | None]:
        return [one.seed for one in order(**fields).requests]

    assert seeds(n="3", seed="5") == [5, 6, 7]
    assert seeds(n=2, seed=2**64 - 1) == [2**64 - 1, 0]
    assert seeds(n=2) == seeds(n=2, seed=-1) == [None, None]
    assert seeds(n=3, seed=[8, 2]) == [8, 2, None]


def test_links_are_for_clients_that_expect_them() -> None:
    assert order(model="dall-e-3").has_links
    assert order(response_format="url").has_links
    assert not order(model="dall-e-3", response_format="b64_json").has_links
    assert not order(model="gpt-image-1").has_links
    assert not order(model="dall-e-3", stream="true").has_links


def test_what_is_not_honoured_is_stated_by_name_alone() -> None:
    made = order(foo="a secret", user="u", style="vivid", strength=0.5)
    assert made.notes == ("unknown fields were ignored: 'foo'",)
    assert made.unknown_fields == 1
    assert made.requests == order().requests


@pytest.mark.parametrize(
    "fields",
    [
        {"image": PICTURE},
        {"image": DATA_URL},
        {"images": [{"image_url": DATA_URL}]},
        {"images": [{"image_url": {"url": DATA_URL}}]},
        {"url": [DATA_URL]},
    ],
    ids=str,
)
def test_an_edit_takes_a_picture_in_every_form(fields: dict[str, Any]) -> None:
    made = order(is_edit=True, **fields)
    assert made.requests[0].image == PICTURE
    assert made.requests[0].strength == 0.75
    assert (made.is_mask_raw, made.notes) == (False, ())


def test_the_first_of_several_pictures_is_edited_and_the_answer_says_so() -> None:
    made = order(is_edit=True, image=[PICTURE, b"another"])
    assert made.requests[0].image == PICTURE
    assert made.notes == ("image is 2 pictures; the first was edited, without the others",)


def test_a_mask_repaints_all_that_it_masks() -> None:
    made = order(is_edit=True, image=PICTURE, mask=b"m")
    assert (made.requests[0].mask_image, made.requests[0].strength) == (b"m", 1)
    assert made.is_mask_raw
    own = order(is_edit=True, image=PICTURE, mask=b"m", strength=0.5, invert_mask="false")
    assert own.requests[0].strength == 0.5
    assert not own.is_mask_raw


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"prompt": None}, "prompt", "is missing"),
        ({"prompt": 5}, "prompt", "is 5"),
        ({"n": 11}, "n", "at most 10"),
        ({"n": "many"}, "n", ""),
        ({"size": "large"}, "size", "like 1024x1024"),
        ({"size": "4096x64"}, "size", "width is 4096"),
        ({"width": 4096}, "width", "width is 4096"),
        ({"steps": 51}, "steps", "steps is 51; at most 50"),
        ({"step": "0"}, "step", "step is 0; at least 1"),
        ({"sampler": "nonsense"}, "sampler", "sampler: not a sampler; known are"),
        ({"sampler": "Euler a", "scheduler": "nonsense"}, "scheduler", "not a schedule type"),
        ({"sampler": 5}, "sampler", "is no text"),
        ({"cfg": "nan"}, "cfg", "is not finite"),
        ({"loras": [{"weight": 1}]}, "loras", "without a name"),
        ({"lora": {"name": "a", "scale": 99}}, "lora.0.weight", "at most 10"),
        ({"background": "transparent"}, "background", "transparent"),
        ({"output_format": "svg"}, "output_format", "png, jpeg or webp"),
        ({"partial_images": 4}, "partial_images", "at most 3"),
        ({"image": "x"}, "image", "/v1/images/edits"),
        ({"is_edit": True}, "image", "is missing"),
        ({"is_edit": True, "image": "https://example.org/a.png"}, "image", "fetches none"),
        ({"is_edit": True, "image": {"file_id": "f"}}, "image", "is no picture"),
        ({"is_edit": True, "image": b"x" * 101}, "image", "has 101 bytes"),
        ({"is_edit": True, "image": b"x", "mask": [b"a", b"b"]}, "mask", "2 times"),
        ({"is_edit": True, "image": b"x", "strength": 2}, "strength", "at most 1"),
    ],
)
def test_a_refusal_names_the_field_as_its_client_did(
    fields: dict[str, Any], field: str, message: str
) -> None:
    named, sentence = refusal(**fields)
    assert named == field
    assert message in sentence


def test_json_is_read_under_any_content_type() -> None:
    for content_type in ("application/json", "", "application/x-www-form-urlencoded", "text/plain"):
        assert read_fields(b' \n{"prompt": "a", "n": null}', content_type, BOUNDS) == {
            "prompt": "a"
        }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no JSON object and no form"),
        (b"[]", "no JSON object and no form"),
        (b"prompt=a", "no JSON object and no form"),
        (b'{"prompt": ', "not valid JSON"),
        (b'{"a": ' + b"[" * 500, "not valid JSON"),
        (b'{"a": [' + b"1," * 2000 + b"1]}", "more than 1000 values"),
    ],
)
def test_other_bodies_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read_fields(body, "application/json", BOUNDS)


def test_the_parts_of_a_form_become_lists_and_objects() -> None:
    parts = [
        ("loras[][name]", b"a"),
        ("loras[][weight]", b"1"),
        ("loras[][name]", b"b"),
        ("lora[0][name]", b"c"),
        ("lora[1][scale]", b"2"),
        ("seed[]", b"1"),
        ("seed[]", b"2"),
        ("image", b"x"),
        ("image", b"y"),
        ("image[]", b"z"),
        ("n", b"1"),
        ("n", b"2"),
        ("a[b][c][d]", b"e"),
    ]
    assert join_parts([Part(name, content, is_file=name[0] == "i") for name, content in parts]) == {
        "loras": [{"name": "a", "weight": "1"}, {"name": "b"}],
        "lora": [{"name": "c"}, {"scale": "2"}],
        "seed": ["1", "2"],
        "image": [[b"x", b"y"], b"z"],
        "n": "2",
        "a[b][c][d]": "e",
    }
