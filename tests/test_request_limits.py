"""Items of a batch are parsed at a bounded cost, and refused with a single request's messages."""

from __future__ import annotations

import json
import mmap
import time

import pytest
from pydantic import ValidationError

from bad_requests import ALL_CASES
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.json_bounds import DEFAULT_BOUNDS
from lpw_sdxl.refusal import explain_refusal
from lpw_sdxl.request_limits import (
    RequestLimits,
    default_largest_size,
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
    body = json.dumps({"requests": [too_long, many, {"widht": 1}, 5, {"prompt": "a"}]}).encode()
    own = mmap.mmap(-1, len(body))
    own.write(body)
    batch = parse_batch(memoryview(own), LIMITS)
    assert sum(isinstance(item, InvalidRequestError) for item in batch.items) == 4
    own.close()  # raises if any part of it is still referred to
