"""Pieces of a network connection to events."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpw_sdxl.client import Event, events

STREAM = (
    'event: queued\ndata: {"place": 0}\n\n'
    ": still here\n\n"
    'event: progress\ndata: {"call": 1, "text": "a \\u00e4 b"}\n\n'
    'event: image\ndata: {"image": "' + "A" * 1000 + '"}\n\n'
)
EXPECTED = [
    Event("queued", {"place": 0}),
    Event("progress", {"call": 1, "text": "a ä b"}),
    Event("image", {"image": "A" * 1000}),
]


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@given(places=st.lists(st.integers(0, 5000), max_size=30))
def test_events_are_the_same_however_the_network_cuts_them(end: str, places: list[int]) -> None:
    content = STREAM.replace("\n", end).encode()
    assert list(events(cut(content, places))) == EXPECTED


def test_texts_are_joined_as_bytes_are() -> None:
    assert list(events(STREAM[i : i + 7] for i in range(0, len(STREAM), 7))) == EXPECTED


@pytest.mark.parametrize("whole", [STREAM, STREAM.encode(), bytearray(STREAM.encode())])
def test_one_whole_text_is_refused_with_a_sentence(whole: Any) -> None:
    with pytest.raises(TypeError, match=r"^the pieces are one \w+; a list of it would be right$"):
        events(whole)
    assert list(events([whole])) == EXPECTED


async def test_an_asynchronous_stream_gives_an_asynchronous_one() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in cut(STREAM.encode(), [*range(0, 200, 3)]):
            yield piece

    assert [event async for event in events(pieces())] == EXPECTED


def test_an_event_comes_with_its_last_byte() -> None:
    def pieces() -> object:
        yield b'event: a\ndata: {"n": 1}\n'
        yield b"\n"
        raise ConnectionError

    read = events(pieces())  # type: ignore[call-overload]
    assert next(read) == Event("a", {"n": 1})


def test_an_event_that_is_cut_off_is_left_out() -> None:
    assert list(events([STREAM.encode()[:-1]])) == EXPECTED[:-1]


def test_data_of_several_lines_and_no_name_are_read_too() -> None:
    text = "data: {\ndata:  \ndata: }\nretry: 5\nid: 7\n\n"
    assert list(events([text])) == [Event("message", {})]


def test_a_long_event_in_small_pieces_takes_linear_time() -> None:
    content = b'event: image\ndata: {"image": "' + b"A" * 3_000_000 + b'"}\n\n'
    pieces = (content[i : i + 100] for i in range(0, len(content), 100))
    [event] = events(pieces)
    assert len(event.data["image"]) == 3_000_000


@pytest.mark.processes
def test_it_imports_neither_torch_nor_the_service() -> None:
    program = (
        "import sys, json, lpw_sdxl.client;"
        "print(json.dumps([name for name in sys.modules if name.partition('.')[0] in"
        " ('torch', 'bentoml', 'pydantic', 'starlette', 'PIL') or name.startswith('lpw_sdxl.')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == ["lpw_sdxl.client"]
