from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lpw_sdxl.api.shaped_answer import PIECE_BYTES, ShapedAnswer

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}


def ignore(_code: str) -> None:
    pass


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 1_000_000])
async def test_a_large_body_is_sent_in_pieces(size: int) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = ShapedAnswer(send, ignore)
    await answer.send(START)
    await answer.send({"type": "http.response.body", "body": content})
    start, *pieces = sent
    assert start == START
    assert b"".join(piece["body"] for piece in pieces) == content
    assert max(len(piece["body"]) for piece in pieces) <= PIECE_BYTES
    more = [piece.get("more_body", False) for piece in pieces]
    assert more == [True] * (len(pieces) - 1) + [False]


async def test_each_part_of_a_stream_is_sent_at_once() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    answer = ShapedAnswer(send, ignore)
    await answer.send(START)
    for part in (b"one", b"x" * (PIECE_BYTES + 3), b"three"):
        await answer.send({"type": "http.response.body", "body": part, "more_body": True})
    await answer.send({"type": "http.response.body"})
    assert [len(message.get("body", b"")) for message in sent[1:]] == [3, PIECE_BYTES, 3, 5, 0]
    assert [message.get("more_body", False) for message in sent[1:]] == [True] * 4 + [False]


async def test_an_answer_is_sent_no_faster_than_its_client_reads() -> None:
    is_read = asyncio.Event()
    sent = 0

    async def send(message: Any) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        if sent:
            await is_read.wait()

    answer = ShapedAnswer(send, ignore)
    await answer.send(START)
    sending = asyncio.create_task(answer.send({"type": "http.response.body", "body": b"x" * 10**6}))
    await asyncio.sleep(0.01)
    assert sent == PIECE_BYTES
    assert not sending.done()
    is_read.set()
    await sending
    assert sent == 10**6
