"""A picture's file in a request: bytes in Python, base64 or a data URL in JSON."""

from __future__ import annotations

import base64
import json

import pytest
from pydantic import ValidationError

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.picture_file import PICTURE_FIELDS
from lpw_sdxl.schema import GenerationRequest

CONTENT = bytes(range(256))
TEXT = base64.b64encode(CONTENT).decode()


@pytest.mark.parametrize("field", PICTURE_FIELDS)
def test_bytes_are_taken_as_they_are_and_texts_are_decoded(field: str) -> None:
    for value in (CONTENT, TEXT, f"data:image/png;base64,{TEXT}"):
        request = GenerationRequest.model_validate({"prompt": "a", field: value})
        assert getattr(request, field) == CONTENT


@pytest.mark.parametrize("field", PICTURE_FIELDS)
@pytest.mark.parametrize("value", [5, True, [TEXT], {"data": TEXT}])
def test_what_is_no_text_is_refused_by_its_field(field: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{field} is no text") as no:
        GenerationRequest.model_validate_json(json.dumps({"prompt": "a", field: value}))
    assert no.value.field == field


def test_an_empty_text_stands_for_the_file_that_was_read_before_it() -> None:
    text = '{"prompt": "a", "image": "", "mask_image": "AAAA"}'
    request = GenerationRequest.model_validate_json(text, context={"image": CONTENT})
    assert (request.image, request.mask_image) == (CONTENT, b"\0\0\0")
    assert GenerationRequest.model_validate_json(text).image == b""


def test_json_of_a_request_is_read_as_the_request() -> None:
    request = GenerationRequest(prompt="a", image=CONTENT, mask_image=CONTENT[:5])
    text = request.model_dump_json(exclude_unset=True)
    assert json.loads(text)["image"] == TEXT
    assert GenerationRequest.model_validate_json(text) == request


def test_a_file_is_neither_in_a_log_nor_kept_where_it_is_not_needed() -> None:
    request = GenerationRequest(prompt="a", image=CONTENT, mask_image=CONTENT)
    assert "image=" not in repr(request)
    bare = request.without_pictures()
    assert bare.image is bare.mask_image is None
    assert bare.prompt == "a"
    plain = GenerationRequest(prompt="a")
    assert plain.without_pictures() is plain


def test_the_schema_says_base64() -> None:
    schema = GenerationRequest.model_json_schema()["properties"]["image"]
    assert {"type": "string", "contentEncoding": "base64"} in schema["anyOf"]


def test_files_do_not_change() -> None:
    request = GenerationRequest(prompt="a", image=CONTENT)
    with pytest.raises(ValidationError, match="frozen"):
        request.image = b""  # type: ignore[misc]
