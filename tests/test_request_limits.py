"""Items of a batch are parsed at a bounded cost, and refused with a single request's messages."""

from __future__ import annotations

import base64
import json
import mmap
import time
from dataclasses import replace

import pytest
from pydantic import ValidationError

from bad_requests import ALL_CASES
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.json_bounds import DEFAULT_BOUNDS
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import RequestLimits, check_limits, default_largest_size
from lpw_sdxl.request_reading import (
    LONGEST_EXPLAINED_BYTES,
    largest_generation_bytes,
    largest_request_bytes,
    parse_batch,
    parse_request,
)
from lpw_sdxl.schema import BatchRequest, GenerationRequest, ImageSize
from lpw_sdxl.settings import Settings

LIMITS = RequestLimits.from_settings(Settings())


def parse_item(item: object) -> GenerationRequest:
    """Parse a batch of a good item, this one and another good one; return this one's result."""
    good = {"prompt": "good"}
    first, result, last = parse_batch(json.dumps({"requests": [good, item, good]}), LIMITS).items
    assert first == last == GenerationRequest(prompt="good")
    if isinstance(result, InvalidRequestError):
        raise result
    return result


def test_an_item_is_read_as_a_request() -> None:
    loras = [{"name": f"lora-{number}", "weight": 0.5} for number in range(10)]
    request = parse_item({"prompt": "a fox", "width": 64, "loras": loras})
    assert (request.prompt, request.width, len(request.loras)) == ("a fox", 64, 10)


@pytest.mark.parametrize("item", [None, [], "a fox", 1, [{"prompt": "a fox"}]])
def test_what_is_no_object_is_refused(item: object) -> None:
    with pytest.raises(InvalidRequestError, match="is an object, as /generate takes it"):
        parse_item(item)


MANY = {
    "fields": {f"field{number}": 1 for number in range(50_000)},
    "loras": {"prompt": "a fox", "loras": [{"name": "a"}] * 15_000},
    "fields of a LoRA": {"prompt": "a fox", "loras": [{str(one): 1 for one in range(50_000)}]},
    "nested": {"prompt": [[[0] * DEFAULT_BOUNDS.values]]},
}


@pytest.mark.parametrize("item", MANY.values(), ids=MANY)
def test_an_item_of_many_values_is_refused_before_it_is_read(item: object) -> None:
    with pytest.raises(InvalidRequestError, match="an item of requests has more than 1000 values"):
        parse_item(item)


def test_an_item_with_a_long_field_name_is_refused_alone() -> None:
    with pytest.raises(InvalidRequestError, match="a field's name of more than 4096 bytes"):
        parse_item({"p" * 100_000: 1})


@pytest.mark.parametrize(
    "padding", [b'{"prompt": "%b"}', b'%b{"prompt": "a"}', b'{"prompt": "a"%b}']
)
def test_an_item_is_no_larger_than_a_single_request(padding: bytes) -> None:
    most = largest_request_bytes(LIMITS.max_prompt_characters)
    item = padding % (b" " * most)
    good, large = parse_batch(b'{"requests": [{"prompt": "a"}, ' + item + b"]}", LIMITS).items
    assert isinstance(good, GenerationRequest)
    assert isinstance(large, InvalidRequestError)
    assert large.message == f"an item of requests has more than {most} bytes beside its pictures"


def test_a_body_of_millions_of_values_is_refused_at_the_first_over_the_bound() -> None:
    body = b'{"requests": [{"prompt": [' + b"{}," * 5_600_000
    began = time.process_time()
    with pytest.raises(InvalidRequestError, match="the body has more than 64064 values"):
        parse_batch(body, LIMITS)
    assert time.process_time() - began < 1  # as objects: 1.5 s and 400 MB, the interpreter held


def test_an_unknown_field_is_still_named() -> None:
    with pytest.raises(InvalidRequestError, match="did you mean width"):
        parse_item({"prompt": "a fox", "widht": 64})


BROKEN = [
    b'{"requests": [{"prompt": "a"}, {"prompt": }]}',
    b'{"requests": [{"prompt": "a"}, {"prompt": "\xff"}]}',
    b'{"requests": [{"prompt": "a"}, {"prompt": "b"}',
    b'{"requests": [{"prompt": "a"}]} {}',
    b'{"requests": [{"prompt": "a"}, ]}',
    b'{"requests": [{"prompt": "a"} {"prompt": "b"}]}',
    b'{"requests": [{"prompt": "a"]}}',
    b'[{"requests": [{"prompt": "a"}]}',
    b'"requests": [{"prompt": "a"}]}',
    b'{"requests": [{"prompt": "a"}, {"prompt": ' + b"[" * 300 + b"]" * 300 + b"}]}",
    b'{"requests": ' + b"[" * 100_000,
]


@pytest.mark.parametrize("body", BROKEN)
def test_a_broken_body_is_refused_as_a_whole_where_it_is_broken(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse_batch(body, LIMITS)
    with pytest.raises(ValidationError) as expected:
        BatchRequest.model_validate_json(body)
    assert refusal.value.message == explain_refusal(expected.value, BatchRequest).message
    assert "is not valid JSON" in refusal.value.message


@pytest.mark.parametrize("body", ['{"image": "TEXT", }', '{"image": "TEXT"'])
def test_a_body_with_a_picture_is_refused_where_it_is_broken(body: str) -> None:
    whole = body.replace("TEXT", TEXT)
    with pytest.raises(ValidationError) as expected:
        GenerationRequest.model_validate_json(whole)
    right = explain_refusal(expected.value, GenerationRequest).message
    padded = body.replace("TEXT", TEXT * (LONGEST_EXPLAINED_BYTES // len(TEXT) + 1))
    for text, message in ((whole, right), (padded, right.partition(" at line ")[0])):
        with pytest.raises(InvalidRequestError) as refusal:
            parse_request(text, LIMITS)
        assert refusal.value.message == message
        with pytest.raises(InvalidRequestError, match="the body is not valid JSON"):
            parse_batch(f'{{"requests": [{text}]}}', LIMITS)


def test_the_last_of_two_lists_counts_however_its_name_is_written() -> None:
    body = b'{"requests": [{"prompt": "a"}], "r\\u0065quests": [{"prompt": "b"}, 1]}'
    first, second = parse_batch(body, LIMITS).items
    assert first == GenerationRequest(prompt="b")
    assert isinstance(second, InvalidRequestError)


ODD = [
    {"scheduler": 4}, {"scheduler": True}, {"scheduler": {}}, {"prompt_style": 3},
    {"image_format": 3}, {"loras": [3]}, {"loras": {}}, {"loras": [None]},
    {"loras": [{"name": 3}]}, {"loras": [{"name": "a", "weight": "1"}]}, {"seed": 1e30},
    {"seed": 2.0}, {"seed": True}, {"deadline_s": True}, {"guidance_scale": 10**400},
    {"guidance_scale": True}, {"prompt": ["a"]}, {"seed": float("nan")}, {"clip_skip": 1.5},
]  # fmt: skip
CASES = [case.sent for cases in ALL_CASES.values() for case in cases if isinstance(case.sent, dict)]


def outcome(read: object, *arguments: object) -> object:
    """Return the parsed item, or the refusal."""
    try:
        return read(*arguments)  # type: ignore[operator]
    except InvalidRequestError as error:
        return error.message, error.field


@pytest.mark.parametrize("fields", [*ODD, *CASES], ids=lambda fields: repr(fields)[:60])
def test_an_item_is_read_as_a_body_is(fields: dict[str, object]) -> None:
    values = {"prompt": "a", "num_inference_steps": 1, **fields}
    assert outcome(parse_item, values) == outcome(parse_request, json.dumps(values), LIMITS)


@pytest.mark.parametrize(
    ("settings", "native_side", "is_on_cpu", "largest"),
    [
        ({}, 64, True, (512, 512)),
        ({}, 64, False, (2048, 2048)),
        ({}, 1024, True, (2048, 2048)),
        ({"max_width": 1536}, 64, True, (512, 1536)),
        ({"max_width": 1536, "max_height": 64}, 1024, False, (64, 1536)),
    ],
)
def test_a_small_model_on_a_cpu_draws_no_large_images_unless_a_setting_says_so(
    settings: dict[str, int], native_side: int, is_on_cpu: bool, largest: tuple[int, int]
) -> None:
    default = default_largest_size(ImageSize(native_side, native_side), is_on_cpu=is_on_cpu)
    limits = RequestLimits.from_settings(Settings(**settings), default)
    assert limits.max_size == largest


def test_refused_items_do_not_keep_the_body() -> None:
    too_long = {"prompt": "a" * 40_000}
    many = {f"field{number}": 1 for number in range(2000)}
    no_base64 = [{"prompt": "a", "image": text} for text in ("no base64!", "no\nbase64!", "é")]
    items = [too_long, many, {"widht": 1}, 5, {"prompt": "a"}, *no_base64]
    body = json.dumps({"requests": items}).encode()
    own = mmap.mmap(-1, len(body))
    own.write(body)
    batch = parse_batch(memoryview(own), LIMITS)
    assert sum(isinstance(item, InvalidRequestError) for item in batch.items) == 7
    own.close()  # raises if any part of it is still referred to


# Fields about a picture.

FILE = b"\x89PNG\xfb\xff" * 20
TEXT = base64.b64encode(FILE).decode()


def parse(**fields: object) -> GenerationRequest:
    return parse_request(json.dumps({"prompt": "a", **fields}), LIMITS)


def test_pictures_are_cut_out_of_the_text_and_read() -> None:
    request = parse(mask_image=TEXT, width=64, image=f"data:image/png;base64,{TEXT}", strength=0.5)
    assert request.image == request.mask_image == FILE
    assert (request.prompt, request.width, request.strength) == ("a", 64, 0.5)
    body = json.dumps({"requests": [{"prompt": "b", "image": TEXT}, {"prompt": "c"}]})
    first, second = parse_batch(body, LIMITS).items
    assert first == GenerationRequest(prompt="b", image=FILE)
    assert second == GenerationRequest(prompt="c")


@pytest.mark.parametrize(
    ("body", "image"),
    [
        (b'{"prompt": "a", "image": "QUJD", "image": null}', None),
        (b'{"prompt": "a", "image": null, "image": "QUJD"}', b"ABC"),
        (b'{"prompt": "a", "image": "QUJD", "image": "REVG"}', b"DEF"),
        (b'{"prompt": "a", "im\\u0061ge": "QUJD"}', b"ABC"),
        (b'{"image": "QUJ\\u0044", "prompt": "a"}', b"ABC"),
    ],
)
def test_of_a_field_that_comes_twice_the_last_counts(body: bytes, image: bytes | None) -> None:
    assert parse_request(body, LIMITS).image == image


ABOUT_PICTURES = {
    "mask_image": (TEXT, "image"),
    "strength": (0.5, "image"),
    "resize_mode": ("crop", "image"),
    "invert_mask": (True, "mask_image"),
    "mask_blur": (4.0, "mask_image"),
    "masked_content": ("fill", "mask_image"),
    "only_masked": (True, "mask_image"),
    "only_masked_padding": (8, "mask_image"),
    "paste_back": (False, "mask_image"),
}


@pytest.mark.parametrize("field", ABOUT_PICTURES)
def test_a_field_about_a_picture_that_is_missing_is_refused(field: str) -> None:
    value, needed = ABOUT_PICTURES[field]
    there = {} if needed == "image" else {"image": TEXT}
    with pytest.raises(InvalidRequestError, match=f"{field} is about a picture in {needed}") as no:
        parse(**there, **{field: value})
    assert no.value.field == field
    assert getattr(parse(**there, **{needed: TEXT, field: value}), field) is not None


def test_a_field_with_its_defaults_value_asks_for_no_picture() -> None:
    defaults = {
        field: GenerationRequest.model_fields[field].default
        for field in ABOUT_PICTURES
        if field != "mask_image"
    }
    assert parse(**defaults, image=None, mask_image=None).image is None


@pytest.mark.parametrize("field", ["image", "mask_image"])
def test_a_file_over_the_limit_is_refused_by_its_field(field: str) -> None:
    limits = replace(LIMITS, max_image_bytes=len(FILE))
    fields = {"prompt": "a", "image": TEXT, "mask_image": TEXT}
    assert parse_request(json.dumps(fields), limits).image == FILE
    fields[field] = base64.b64encode(FILE + b"a").decode()
    with pytest.raises(InvalidRequestError, match=f"{field} has more than {len(FILE)} bytes") as no:
        parse_request(json.dumps(fields), limits)
    assert no.value.field == field
    # A caller in Python has the bytes already.
    request = GenerationRequest.model_validate(
        {"prompt": "a", "image": FILE, "mask_image": FILE, field: FILE + b"a"}
    )
    with pytest.raises(InvalidRequestError, match=f"{field} has {len(FILE) + 1} bytes") as no:
        check_limits(request, limits)
    assert no.value.field == field


def test_the_largest_pictures_fit_into_the_largest_request() -> None:
    limits = replace(LIMITS, max_image_bytes=3 * 2**20)
    lines = base64.encodebytes(bytes(limits.max_image_bytes)).decode()
    body = json.dumps({"prompt": "a" * 10_000, "image": lines, "mask_image": lines})
    assert len(body) <= largest_generation_bytes(limits)
    assert parse_request(body, limits).image == bytes(limits.max_image_bytes)


@pytest.mark.parametrize("field", ["image", "mask_image"])
def test_a_picture_that_is_none_is_refused_by_its_field_in_a_batch_too(field: str) -> None:
    for value in ("https://example.com/a.png", "no base64!", 5, [TEXT]):
        with pytest.raises(InvalidRequestError) as no:
            parse(**({"image": TEXT} | {field: value}))
        assert no.value.field == field
        with pytest.raises(InvalidRequestError) as no:
            parse_item({"prompt": "a", "image": TEXT} | {field: value})
        assert no.value.field == field
