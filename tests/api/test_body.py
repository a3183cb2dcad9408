from __future__ import annotations

import json
from typing import Any

import pytest

from lpw_sdxl.api.border import endpoint_table
from lpw_sdxl.api.endpoints import Body
from lpw_sdxl.api.head import refuse_body_headers, refuse_headers
from lpw_sdxl.api.native import native_endpoints
from lpw_sdxl.api.native_schemas import ServedLimits
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.request_reading import parse_inspection, parse_request
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.settings import Settings

TAKEN = Body(lambda payload: payload, 1000)


def body_limits(settings: Settings) -> dict[str, int]:
    rows = native_endpoints(ServedLimits.from_settings(settings, ImageSize(64, 64)))
    table = endpoint_table(rows, settings)
    return {row.path: row.body.limit for row in table if row.body is not None}


def scope(*headers: tuple[str, str], **single: str) -> dict[str, Any]:
    pairs = [*headers, *((name.replace("_", "-"), value) for name, value in single.items())]
    return {"headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs]}


def status(refusal: Any) -> int | None:
    return None if refusal is None else refusal.status


@pytest.mark.parametrize("characters", [1, 1000, 32_768])
def test_a_valid_request_fits_however_its_json_is_escaped(characters: int) -> None:
    settings = Settings(max_prompt_characters=characters)
    limits = body_limits(settings)
    prompts = {"prompt": "\U0001f98a" * characters, "negative_prompt": "\U0001f98a" * characters}
    names = [{"name": "\U0001f98a" * 100, "weight": -1.2345678901234567} for _ in range(16)]
    request = json.dumps(prompts | {"loras": names}, indent=8).encode()
    parse_request(request, RequestLimits.from_settings(settings))
    assert len(request) <= limits["/generate"]
    inspection = json.dumps(prompts, indent=8).encode()
    parse_inspection(inspection, RequestLimits.from_settings(settings))
    assert len(inspection) <= limits["/inspect_prompt"]


def test_no_path_takes_more_than_the_setting_says() -> None:
    assert set(body_limits(Settings(max_body_bytes=1024)).values()) == {1024}
    limits = body_limits(Settings())
    assert limits["/generate_batch"] == Settings().max_body_bytes
    assert limits["/info"] == 1024
    pictures = 2 * Settings().max_image_bytes * 4 / 3  # in base64
    assert pictures < limits["/generate"] < Settings().max_body_bytes
    assert limits["/inspect_prompt"] < 1024**2
    assert pictures / 2 < limits["/read_parameters"] < limits["/generate"]


TYPES = {
    "plain": ("application/json", None),
    "capitals": ("Application/JSON; Charset=UTF-8", None),
    "quoted": ('application/json;charset="utf-8"', None),
    "ASCII": ("application/json; charset=us-ascii", None),
    "UTF-16": ("application/json; charset=utf-16", 415),
    "Latin-1": ("application/json; charset=iso-8859-1", 415),
    "half a quote": ('application/json; charset="utf-8', 415),
    "another parameter": ("application/json; boundary=x", 415),
    "text": ("text/plain", 415),
    "a relative": ("application/json-seq", 415),
    "two in one": ("text/plain, application/json", 415),
    "a form": ("application/x-www-form-urlencoded", 415),
    "BentoML's own": ("application/vnd.bentoml+pickle", 415),
    "nothing": ("", 415),
}


@pytest.mark.parametrize(("media_type", "expected"), TYPES.values(), ids=TYPES.keys())
def test_only_json_in_utf_8_is_taken(media_type: str, expected: int | None) -> None:
    asked = scope(content_type=media_type, content_length="2")
    assert status(refuse_body_headers(asked, TAKEN)) == expected


def test_two_content_types_and_a_compressed_body_are_refused() -> None:
    json_type = ("content-type", "application/json")
    assert status(refuse_body_headers(scope(json_type, json_type), TAKEN)) == 415
    assert status(refuse_body_headers(scope(json_type, content_encoding="gzip"), TAKEN)) == 415
    assert status(refuse_body_headers(scope(json_type, content_encoding="identity"), TAKEN)) is None
    assert status(refuse_body_headers(scope(), TAKEN)) == 415


@pytest.mark.parametrize(("length", "expected"), [(0, None), (1000, None), (1001, 413)])
def test_a_body_is_refused_by_the_length_it_tells(length: int, expected: int | None) -> None:
    asked = scope(content_type="application/json", content_length=str(length))
    assert status(refuse_body_headers(asked, TAKEN)) == expected


def test_a_path_without_a_body_takes_none() -> None:
    assert refuse_body_headers(scope(), None) is None
    assert refuse_body_headers(scope(content_length="0"), None) is None
    assert status(refuse_body_headers(scope(content_length="2"), None)) == 413
    assert status(refuse_body_headers(scope(transfer_encoding="chunked"), None)) == 413


def test_headers_are_bounded_in_number_and_size() -> None:
    many = scope(*[(f"x-{number}", "y") for number in range(100)])
    assert refuse_headers(many) is None
    assert status(refuse_headers(scope(*[(f"x-{number}", "y") for number in range(101)]))) == 431
    assert refuse_headers(scope(x="y" * 16_000)) is None
    assert status(refuse_headers(scope(x="y" * 16_400))) == 431


def test_two_lengths_for_one_body_are_refused() -> None:
    asked = scope(content_length="2", transfer_encoding="chunked")
    assert status(refuse_headers(asked)) == 400
