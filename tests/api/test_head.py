from __future__ import annotations

import pytest

from lpw_sdxl.api.head import refuse_announced

JSON = (b"content-type", b"application/json")


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
def test_a_head_is_refused_for_what_nobody_reads(
    headers: list[tuple[bytes, bytes]], query: bytes, status: int | None
) -> None:
    refusal = refuse_announced({"headers": headers, "query_string": query}, 1000)
    assert (None if refusal is None else refusal.status) == status
