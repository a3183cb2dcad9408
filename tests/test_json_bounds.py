"""JSON texts are counted in linear time before anything is made from them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from lpw_sdxl import json_bounds
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.json_bounds import (
    PARSER_DEPTH,
    JsonBounds,
    check_bounds,
    find_texts,
    split_list,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
MANY = JsonBounds(values=100_000, name_bytes=100_000)


def count(value: Any) -> int:
    """Count what stands in lists and objects, and an empty one as one."""
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return max(1, len(value)) + sum(map(count, inner))


def longest_name(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    inner = [*value.values()] if isinstance(value, dict) else value
    names = [len(json.dumps(name)) - 2 for name in value] if isinstance(value, dict) else []
    return max([0, *names, *map(longest_name, inner)])


def is_refused(text: bytes, bounds: JsonBounds, why: str) -> bool:
    """Return whether a text is over a bound, for the reason expected."""
    try:
        check_bounds(text, bounds)
    except InvalidRequestError as error:
        return why in error.message
    return False


@given(JSON_VALUES, st.sampled_from([None, 1]))
def test_values_and_names_are_counted_as_they_are(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent).encode()
    for most, why, bounds in (
        (count(value), "values", lambda most: JsonBounds(most, 100_000)),
        (longest_name(value), "name", lambda most: JsonBounds(100_000, most)),
    ):
        assert not is_refused(text, bounds(most), "")
        if most > 0:
            assert is_refused(text, bounds(most - 1), why)


@given(st.lists(JSON_VALUES), JSON_VALUES, st.sampled_from([None, 1]))
def test_a_list_is_split_into_its_elements(
    values: list[Any], other: Any, indent: int | None
) -> None:
    whole = {"a": other, "list": values, "b": [other], "c": {"list": [other]}}
    text = json.dumps(whole, indent=indent).encode()
    elements = split_list(text, "list", MANY, MANY, "an element")
    assert [json.loads(text[one.start : one.end]) for one in elements] == values
    assert all(one.refusal is None for one in elements)


def found(text: bytes, *names: str) -> dict[str, bytes]:
    """Find texts, as they are written."""
    spans = find_texts(text, names or ("image", "mask_image"), MANY)
    return {name: text[span.start : span.end] for name, span in spans.items()}


@given(st.dictionaries(st.text(), JSON_VALUES), JSON_VALUES, st.sampled_from([None, 1]))
def test_texts_of_the_outermost_object_are_found(
    values: dict[str, Any], other: Any, indent: int | None
) -> None:
    whole = values | {"image": other, "other": {"mask_image": "inner"}}
    text = json.dumps(whole, indent=indent).encode()
    texts = {name: value for name, value in whole.items() if isinstance(value, str)}
    assert {
        name: json.loads(b'"%b"' % written) for name, written in found(text, *whole).items()
    } == texts


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        (b'{"image": "QQ==", "image": "Qg=="}', {"image": b"Qg=="}),
        (b'{"im\\u0061ge": "QQ=="}', {"image": b"QQ=="}),
        (b'{"image": "a\\"b", "mask_image": ""}', {"image": b'a\\"b', "mask_image": b""}),
        (b'{"prompt": "image", "a": "mask_image"}', {}),
        (b'{"image": null, "mask_image": ["QQ=="]}', {}),
        (b'{"requests": [{"image": "QQ=="}]}', {}),
        (b'["image", "QQ=="]', {}),
        (b'{"a": {"image": "QQ=="}, "mask_image": "Qg=="}', {"mask_image": b"Qg=="}),
        (b'{"loras": [], "image": "QQ=="}', {"image": b"QQ=="}),
    ],
)
def test_only_a_string_of_the_named_field_is_its_text(text: bytes, texts: dict[str, bytes]) -> None:
    assert found(text) == texts


def test_bounds_are_checked_where_texts_are_looked_for() -> None:
    with pytest.raises(InvalidRequestError, match="the body has more than 1000 values"):
        find_texts(b'{"image": "QQ==", "loras": [' + b"{}," * 1001, ("image",))


@given(st.text('{}[],:"\\ image', max_size=60))
def test_in_what_is_nearly_json_texts_lie_inside_of_it(text: str) -> None:
    written = b'{"image": ' + text.encode()
    for span in find_texts(written, ("image", "mage"), MANY).values():
        assert 0 < span.start <= span.end <= len(written)


@given(st.binary())
def test_what_is_no_json_is_only_counted(text: bytes) -> None:
    check_bounds(text, MANY)
    split_list(text, "list", MANY, MANY, "an element")


@given(st.text('{}[],:"\\ alist', max_size=60))
def test_what_is_nearly_json_is_only_counted(text: str) -> None:
    check_bounds(text.encode(), MANY)
    split_list(b'{"list": ' + text.encode(), "list", MANY, MANY, "an element")


HOSTILE = {
    "strings without commas": b"[" + b'"a"' * 1_000_000,
    "empty": b'{"a": [' + b"{}," * 1_000_000,
    "fields": b"{" + b'"a":1,' * 1_000_000,
    "a name": b'{"' + b"a" * 1_000_000,
    "a name of escapes": b'{"' + b'\\"' * 1_000_000 + b'": 1}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_too_much_is_refused_by_its_beginning(text: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"^the body has "):
        check_bounds(text)


@pytest.mark.parametrize("escape", [b'\\"', b"\\\\", b"\\u0022", b"x\\n"])
def test_escapes_across_windows_end_no_string(escape: bytes) -> None:
    for shift in range(3):
        text = b'{"a": "' + b"y" * shift + escape * 100_000 + b'", "list": [1, 2]}'
        elements = split_list(text, "list", MANY, MANY, "an element")
        assert [text[one.start : one.end].strip() for one in elements] == [b"1", b"2"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_counting_ends_where_the_parser_does(opening: bytes) -> None:
    text = opening * PARSER_DEPTH + b"1" + b",1" * 1_000_000
    with pytest.raises(InvalidRequestError):
        check_bounds(text)
    text = opening * (PARSER_DEPTH + 1) + b"1" + b",1" * 1_000_000
    check_bounds(text)
    with pytest.raises(ValueError, match="recursion limit"):
        from_json(text)


def test_the_interpreter_is_left_to_others_within_a_long_string(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[None] = []
    monkeypatch.setattr(json_bounds, "let_others_run", lambda: pauses.append(None))
    check_bounds(b'{"image": "%b"}' % (b"A" * 2**20))
    assert len(pauses) >= 2**20 // 2**17
