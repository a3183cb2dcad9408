"""Thousands of wrong requests to OpenAI's paths of a real service: refused, and nothing else.

`make test-fuzz` runs them. Requests by the document are schemathesis's; forms are spoilt here, on
the wire: boundaries, heads, nesting, sizes that lie, bodies that are slow or have no end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from conftest import ROOT, Store
from recordings import BOUNDARY, read, write_form
from serving import Server, serving
from test_service_schemathesis import SETTINGS, answered, fuzz

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.processes, pytest.mark.fuzz]

CASES, FORMS, AT_ONCE = 10_000, 5000, 16
SLOW_EVERY, ENDLESS_EVERY = 250, 500
MB = 1024 * 1024
MOST_BODY = 16 * MB  # of which eight may be under way
STATUSES = {"200", "400", "404", "405", "408", "409", "413", "415", "429"}
EDITS = b"POST /v1/images/edits HTTP/1.1\r\nhost: localhost\r\n"
CLOSED = 0  # without an answer: the client had gone, or sent what is no HTTP


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bound = {"LPW_SDXL_MAX_BODY_BYTES": str(MOST_BODY), "LPW_SDXL_MAX_IMAGE_BYTES": str(4 * MB)}
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=store.environment | SETTINGS | bound,
        log_file=tmp_path_factory.mktemp("fuzzed") / "log",
    ) as server:
        yield server


@pytest.mark.timeout(7200)
def test_ten_thousand_requests_get_documented_answers(server: Server, tmp_path: Path) -> None:
    options = ("--include-path-regex", "^/v1/", "--max-examples", "5200")
    report = fuzz(server, tmp_path, *options, timeout_s=7100)
    statuses = answered(server)
    count = report["test_cases"]["generated"]
    logger.info("%d cases in %.0f s; %s", count, report["running_time"], statuses)
    assert count >= CASES
    assert set(statuses) <= STATUSES
    assert statuses["200"] > CASES / 10
    assert "Traceback" not in server.log


class Sent(NamedTuple):
    """One form as it goes over the wire.

    Attributes:
        pieces: in order.
        pause: between them, seconds.
        is_cut: whether the client then sends nothing more, as the server may wait for it.
        is_endless: whether it is more than is taken, and read no further after a while.
    """

    pieces: tuple[bytes, ...]
    pause: float = 0.0
    is_cut: bool = False
    is_endless: bool = False


PARTS = read("openai-python-edit-extra").body
MARK = BOUNDARY.encode()
PIECES = (
    b"\r\n", b"--", MARK, b"--" + MARK, b"--" + MARK + b"--", b'name="', b'"', b";", b"\\", b"\x00",
    b"filename=", b"filename*=UTF-8''%ff", b"[]", b"[0]", b"[name]", b"[" * 40, b"[999999999999]",
    b"content-transfer-encoding: base64\r\n", b"content-length: 3\r\n", b"\xff\xfe", b"1e999", b"{",
    b"Content-Type: multipart/mixed; boundary=x\r\n", b"-1", b"null", b"9" * 400, b"A" * 5000,
)  # fmt: skip
BOUNDARIES = (
    b"", b"x", b'"' + MARK + b'"', MARK + b"; charset=utf-16", b"-" * 300, b"(.*)+$", b"\xff\xfe",
    b'"a;b"', MARK.upper(),
)  # fmt: skip


def spoil(chance: random.Random, form: bytes) -> bytes:
    """Cut, double, insert and overwrite at a few places."""
    body = bytearray(form)
    for _ in range(chance.randrange(1, 6)):
        start = chance.randrange(len(body) + 1)
        end = start + chance.choice((0, 0, 1, 2, 30, 400))
        body[start:end] = chance.choice([*PIECES, body[end : end + 40], body[start:end] * 2, b""])
    return bytes(body)


def head(body: bytes, boundary: bytes = MARK, *lengths: bytes) -> bytes:
    lines = lengths or (b"content-length: %d" % len(body),)
    content_type = b"content-type: multipart/form-data; boundary=" + boundary
    return EDITS + b"\r\n".join((content_type, b"connection: close", *lines)) + b"\r\n\r\n"


def write_parts(chance: random.Random) -> bytes:
    """The form, with its parts shuffled, doubled or left out."""
    has_loras = chance.random() < 0.5  # of names that are not here, so that nothing is drawn
    parts = [one for one in PARTS if has_loras or not one["name"].startswith("loras")]
    chance.shuffle(parts)
    steps = [{"name": "steps", "text": "1"}, {"name": "size", "text": "64x64"}]
    return write_form([*parts[: chance.randrange(1, 9)], *steps, *parts[: chance.randrange(3)]])


def spoilt(chance: random.Random) -> Sent:
    body = spoil(chance, write_parts(chance))
    return Sent((head(body) + body,))


def other_boundary(chance: random.Random) -> Sent:
    body = write_parts(chance)
    return Sent((head(body, chance.choice(BOUNDARIES)) + body,))


def lying(chance: random.Random) -> Sent:
    """A length or chunks that are not those of the body."""
    body = write_parts(chance)
    length = len(body) + chance.choice((-len(body), -40, -1, 1, 40, 10**9, 10**18))
    chunk = b"%x\r\n" % max(0, length) + body + b"\r\n0\r\n\r\n"
    both = (b"content-length: %d" % len(body), b"transfer-encoding: chunked")
    return chance.choice(
        (
            Sent((head(body, MARK, b"content-length: %d" % length) + body,), is_cut=True),
            Sent((head(body, MARK, b"transfer-encoding: chunked") + chunk,), is_cut=True),
            Sent((head(body, MARK, *both) + body,), is_cut=True),
            Sent((head(body, MARK, b"content-length: -1") + body,), is_cut=True),
        )
    )


def in_pieces(chance: random.Random) -> Sent:
    body = spoil(chance, write_parts(chance)) if chance.random() < 0.5 else write_parts(chance)
    whole = head(body) + body
    size = chance.randrange(100, 400)
    return Sent(tuple(whole[at : at + size] for at in range(0, len(whole), size)), 0.02)


def endless(chance: random.Random) -> Sent:
    """A body without an end, in chunks of 64 kB: more than is taken."""
    name = chance.choice((b"image", b"prompt", b"mask", b"other"))
    filename = chance.choice((b"", b'; filename="a"'))
    start = chance.choice(
        (
            b"",
            b"--" + MARK + b"\r\n",
            b"--" + MARK + b'\r\ncontent-disposition: form-data; name="' + name + b'"' + filename
            + b"\r\n\r\n",
        )
    )  # fmt: skip
    fillings = (b"\r\n--" + MARK[:-1], b"\x00", b"\r\n", b"x: y\r\n", write_parts(chance))
    filling = chance.choice(fillings)
    chunk = (filling * (64 * 1024 // len(filling) + 1))[: 64 * 1024]
    framed = b"%x\r\n" % len(chunk) + chunk + b"\r\n"
    first = head(b"", MARK, b"transfer-encoding: chunked") + b"%x\r\n" % (len(start) + 1) + start
    pieces = (first + b"-\r\n", *[framed] * (2 * MOST_BODY // len(chunk)))
    return Sent(pieces, is_endless=True)


USUAL: tuple[Callable[[random.Random], Sent], ...] = (spoilt, spoilt, other_boundary, lying)


def make(index: int, chance: random.Random) -> Sent:
    if index % ENDLESS_EVERY == 0:
        return endless(chance)
    return in_pieces(chance) if index % SLOW_EVERY == 1 else chance.choice(USUAL)(chance)


async def send(address: tuple[str, int], sent: Sent) -> int:
    """Send a form; return the status, or `CLOSED`."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        with contextlib.suppress(ConnectionError):  # refused before its end
            for piece in sent.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(sent.pause)
            if sent.is_cut:
                writer.write_eof()
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(64), 90)
        return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else CLOSED
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def resident(server: Server) -> int:
    """The bytes of the largest process of the service."""
    family = psutil.Process(server.process.pid).children(recursive=True)
    return max(int(one.memory_info().rss) for one in family)


@pytest.mark.timeout(3600)
async def test_five_thousand_spoilt_forms_are_refused(server: Server) -> None:
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    address = (parts.hostname, parts.port)
    statuses: Counter[int] = Counter()
    before = most = resident(server)
    numbers = iter(range(FORMS))

    async def work() -> None:
        nonlocal most
        for index in numbers:
            sent = make(index, random.Random(index))
            status = await send(address, sent)
            assert status != CLOSED or sent.is_cut or sent.is_endless, index
            statuses[status] += 1
            most = max(most, resident(server)) if index % 20 == 0 else most

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    logger.info("%s; memory grew by %d MB at most", statuses, (most - before) / MB)
    assert statuses.total() == FORMS
    assert {str(one) for one in statuses} <= STATUSES | {str(CLOSED)}
    assert statuses[400] > FORMS / 5
    assert statuses[200] > FORMS / 100
    assert statuses[413] > 0
    assert most - before < 8 * MOST_BODY + 64 * MB
    assert "Traceback" not in server.log
    body = {"prompt": "a", "size": "64x64", "steps": 1}
    answer = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
