from __future__ import annotations

import pytest

from lpw_sdxl.api.endpoints import MULTIPART, Body, HeadCheck
from lpw_sdxl.api.head import refuse_body_headers

JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"multipart/form-data; boundary=x")
TAKEN = Body(lambda payload: payload, 1000)


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ([JSON], b"", None),
        ([(b"content-type", b"application/JSON ; charset=utf-8")], b"", None),
        ([JSON, (b"content-encoding", b"identity")], b"", None),
        ([], b"", 415),
        ([(b"content-type", b"text/plain"), JSON], b"", 415),
        ([(b"content-type", b"\xff")], b"", 415),
        ([JSON, (b"content-encoding", b"gzip")], b"", 415),
        ([JSON, (b"content-encoding", b"identity"), (b"content-encoding", b"br")], b"", 415),
        ([JSON], b"seed=7", 400),
    ],
)
def test_a_head_is_refused_for_what_the_endpoint_does_not_read(
    headers: list[tuple[bytes, bytes]], query: bytes, status: int | None
) -> None:
    refusal = refuse_body_headers({"headers": headers, "query_string": query}, TAKEN)
    assert (None if refusal is None else refusal.status) == status


@pytest.mark.parametrize("headers", [[], [FORM], [(b"content-type", b"text/plain"), JSON], [JSON]])
def test_a_tolerant_endpoint_takes_any_media_type_and_a_query(
    headers: list[tuple[bytes, bytes]],
) -> None:
    body = Body(lambda payload: payload, 1000, head_check=HeadCheck.TOLERANT)
    assert refuse_body_headers({"headers": headers, "query_string": b"seed=7"}, body) is None


@pytest.mark.parametrize(("header", "status"), [(FORM, None), (JSON, 415)])
def test_a_strict_endpoint_takes_its_own_media_types(
    header: tuple[bytes, bytes], status: int | None
) -> None:
    body = Body(lambda payload: payload, 1000, media_types=(MULTIPART,))
    refusal = refuse_body_headers({"headers": [header]}, body)
    assert (None if refusal is None else refusal.status) == status
