"""Bodies as A1111's clients write them: objects with pictures, lists of them, and nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lpw_sdxl.doors.a1111.bodies import SMALL_BYTES, read_object, read_objects
from lpw_sdxl.errors import BodyTooLargeError, InvalidRequestError

FILE = bytes(range(256)) * 10
TEXT = base64.b64encode(FILE).decode()


def test_pictures_are_cut_out_and_null_is_absent() -> None:
    body = json.dumps({"a": 1, "image": TEXT, "b": None, "other": TEXT}).encode()
    assert read_object(body, ("image",), 10**4) == {"a": 1, "image": FILE, "other": TEXT}
    assert read_object(b"") == {}
    assert read_object(b' \n{"a": []}') == {"a": []}
    assert read_object(json.dumps({"image": ""}).encode(), ("image",)) == {"image": ""}


@pytest.mark.parametrize("body", [b"[]", b"null", b'""', b"x", b"{", b'{"a": 1}}', b"{]", b" "])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_object(body)


def test_there_may_be_little_beside_pictures() -> None:
    large = json.dumps({"image": TEXT, "other": "x" * SMALL_BYTES}).encode()
    with pytest.raises(BodyTooLargeError):
        read_object(large, ("image",), 10**4)
    with pytest.raises(InvalidRequestError, match="image"):
        read_object(json.dumps({"image": TEXT}).encode(), ("image",), 100)


def test_objects_of_a_list_have_their_pictures() -> None:
    body = {"a": 1, "list": [{"data": TEXT, "name": "x"}, {"name": None}]}
    fields, items = read_objects(json.dumps(body).encode(), "list", ("data",), 10**4, 3)
    assert fields["a"] == 1
    assert items == [{"data": FILE, "name": "x"}, {}]
    assert read_objects(b'{"list": "text"}', "list", ("data",), 10**4, 3)[1] == []


@pytest.mark.parametrize("items", [[1], [[]], [{}] * 4, [{"a": [0] * 99}]])
def test_a_list_of_something_else_is_refused(items: list[Any]) -> None:
    with pytest.raises(InvalidRequestError):
        read_objects(json.dumps({"list": items}).encode(), "list", ("data",), 10**4, 3)
