"""Items of a batch are parsed at a bounded cost, and refused with the messages of /generate."""

from __future__ import annotations

import json
import time

import pytest

from bad_requests import ALL_CASES
from lpw_sdxl.api.batch import MAX_VALUES, parse_item
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.request_limits import RequestLimits, parse_request
from lpw_sdxl.settings import Settings

LIMITS = RequestLimits.from_settings(Settings())


def test_an_item_is_read_as_a_request() -> None:
    loras = [{"name": f"lora-{number}", "weight": 0.5} for number in range(10)]
    request = parse_item({"prompt": "a fox", "width": 64, "loras": loras}, LIMITS)
    assert (request.prompt, request.width, len(request.loras)) == ("a fox", 64, 10)


@pytest.mark.parametrize("item", [None, [], "a fox", 1, [{"prompt": "a fox"}]])
def test_what_is_no_object_is_refused(item: object) -> None:
    with pytest.raises(InvalidRequestError, match="is an object, as /generate takes it"):
        parse_item(item, LIMITS)


@pytest.mark.parametrize(
    "item",
    [
        {f"field{number}": 1 for number in range(500_000)},
        {"prompt": "a fox", "loras": [{"name": "a"}] * 500_000},
        {"prompt": "a fox", "loras": [{str(number): 1 for number in range(500_000)}]},
        {"prompt": [[[0] * MAX_VALUES]]},
    ],
    ids=["fields", "loras", "fields of a LoRA", "nested"],
)
def test_an_item_of_a_million_values_is_refused_before_it_is_read(item: object) -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequestError, match="more than 1000 values"):
        parse_item(item, LIMITS)
    assert time.process_time() - began < 0.05  # with a sentence for each field: seconds


def test_an_unknown_field_is_still_named() -> None:
    with pytest.raises(InvalidRequestError, match="did you mean width"):
        parse_item({"prompt": "a fox", "widht": 64}, LIMITS)


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
    assert outcome(parse_item, values, LIMITS) == outcome(parse_request, json.dumps(values), LIMITS)
