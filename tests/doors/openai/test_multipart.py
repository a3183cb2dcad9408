"""Forms: cut into parts, under bounds, whatever bytes come."""

from __future__ import annotations

import random

import pytest

from lpw_sdxl.doors.openai.multipart import (
    MAX_PARTS,
    Part,
    PartBounds,
    read_boundary,
    read_parts,
)
from lpw_sdxl.errors import InvalidRequestError
from recordings import BOUNDARY, write_form

BOUNDS = PartBounds(text=1000, file=10_000)
MARK = BOUNDARY.encode()
FORM = [
    {"name": "prompt", "text": "a red circle"},
    {"name": "image[]", "filename": "blob", "content_type": "image/png", "base64": "AA0KLS0NCg=="},
    {"name": "empty", "text": ""},
]
PARTS = [
    Part("prompt", b"a red circle", is_file=False),
    Part("image[]", b"\x00\r\n--\r\n", is_file=True),
    Part("empty", b"", is_file=False),
]


def test_parts_are_cut_out_as_they_were_sent() -> None:
    body = write_form(FORM)
    assert read_parts(body, MARK, BOUNDS) == PARTS
    assert read_parts(memoryview(body), MARK, BOUNDS) == PARTS
    assert read_parts(b"a preamble\r\n" + body + b"an epilogue", MARK, BOUNDS) == PARTS


def test_a_part_larger_than_a_window_is_found_whole() -> None:
    content = random.Random(1).randbytes(600_000)
    for cut in range(1, 8):  # the boundary lies across the edge of a window
        body = b"--B\r\nContent-Disposition: form-data; name=f; filename=x\r\n\r\n"
        inner = content[: 2 * 256 * 1024 - len(body) - cut]
        parts = read_parts(body + inner + b"\r\n--B--", b"B", PartBounds(0, 10**6))
        assert parts == [Part("f", inner, is_file=True)]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; Boundary="a b"', b"a b"),
        ("multipart/form-data;boundary=----x; a=b", b"----x"),
    ],
)
def test_a_boundary_is_read_in_every_form(content_type: str, boundary: bytes) -> None:
    assert read_boundary(content_type) == boundary


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequestError, match="boundary"):
        read_boundary(content_type)


HEAD = b'--B\r\nContent-Disposition: form-data; name="a"\r\n'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no boundary at its beginning"),
        (b"--C\r\n", "no boundary at its beginning"),
        (HEAD + b"\r\nx", "no closing boundary"),
        (HEAD + b"\r\nx\r\n--B", "a head without an end"),
        (b"--B\r\n\r\nx\r\n--B--", "a part without a head"),
        (b"--B\r\nContent-Type: text/plain\r\n\r\nx\r\n--B--", "a part without a name"),
        (b"--Bx\r\n" + HEAD, "something behind it"),
        (HEAD + b"X: " + b"x" * 5000 + b"\r\n\r\n\r\n--B--", "a head without an end"),
        (HEAD + b"Content-Transfer-Encoding: base64\r\n\r\nx\r\n--B--", "it must be binary"),
        (HEAD + b"\r\n" + b"x" * 1001 + b"\r\n--B--", "a has 1001 bytes and may have 1000"),
        ((HEAD + b"\r\n\r\n") * (MAX_PARTS + 1) + b"--B--", "more than 100 parts"),
    ],
)
def test_a_broken_form_is_refused_with_the_reason(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read_parts(body, b"B", BOUNDS)


def test_mutated_forms_are_parts_or_refusals() -> None:
    """Boundaries, heads and sizes that lie: no other error, and nothing over its bounds."""
    randomly = random.Random(20261201)
    pieces = [
        b"\r\n",
        b"--",
        MARK,
        b"--" + MARK,
        b'name="',
        b'"',
        b";",
        b"\\",
        b"\x00",
        b"filename=",
    ]
    refused = 0
    for _ in range(5000):
        body = bytearray(write_form(FORM))
        for _ in range(randomly.randrange(1, 6)):
            start = randomly.randrange(len(body))
            end = start + randomly.choice((0, 0, 1, 2, 30))
            body[start:end] = randomly.choice([*pieces, body[end : end + 40], b""])
        try:
            parts = read_parts(bytes(body), MARK, BOUNDS)
        except InvalidRequestError:
            refused += 1
        else:
            assert sum(len(part.content) for part in parts) <= len(body)
    assert 1000 < refused < 5000


def test_a_body_that_nearly_ends_everywhere_is_read_once() -> None:
    """Beginnings of the boundary, and line ends; quadratic time would end this test."""
    boundary = b"-" * 70
    for filling in (b"\r\n" + b"-" * 60, b"\r\n"):
        body = b"--" + boundary + b"\r\n" + HEAD[5:] + b"\r\n" + filling * (2**22 // len(filling))
        with pytest.raises(InvalidRequestError, match="no closing boundary"):
            read_parts(body, boundary, BOUNDS)
