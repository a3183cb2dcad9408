"""A few small requests at their limits, sent to the real service: it refuses, and serves on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from conftest import ROOT, Store
from lpw_sdxl.api.border import LARGEST_BODIES
from serving import Server, serving

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

MB = 1024 * 1024
MAX_BODY = 16 * MB  # so that all bodies together may take 128 MB
BODY = 4 * MB  # with four times as much that may be made of it
SMALL = {"prompt": "a fox", "num_inference_steps": 1, "width": 64, "height": 64, "seed": 1}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def bounded(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = store.environment | {"LPW_SDXL_MAX_BODY_BYTES": str(MAX_BODY)}
    log_file = tmp_path_factory.mktemp("bounded") / "log"
    target = "service:LpwSdxl"
    with serving(target, folder=ROOT, environment=environment, log_file=log_file) as server:
        yield server


def resident(server: Server) -> int:
    """Return the bytes of the worker, the largest process of the service."""
    supervisor = psutil.Process(server.process.pid)
    family = supervisor.children(recursive=True)
    return max(int(one.memory_info().rss) for one in family)


async def post_all(
    server: Server, requests: list[tuple[str, bytes]]
) -> list[httpx.Response | httpx.HTTPError]:
    """Send all requests at once, each on a connection of its own."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:

        async def post(path: str, body: bytes) -> httpx.Response | httpx.HTTPError:
            try:
                return await client.post(path, content=body, headers=JSON)
            except httpx.HTTPError as error:  # refused before its body was read to the end
                return error

        return await asyncio.gather(*(post(path, body) for path, body in requests))


def statuses(answers: list[Any]) -> Counter[int]:
    return Counter(one.status_code for one in answers if isinstance(one, httpx.Response))


def body(content: object) -> bytes:
    return json.dumps(content).encode()


def assert_serves(server: Server) -> None:
    answer = httpx.post(f"{server.url}/generate", json=SMALL, timeout=60)
    assert answer.status_code == 200, answer.text


async def test_inspections_wait_in_a_queue_of_their_own(bounded: Server) -> None:
    text = "sun sea fox " * 1500
    inspection = ("/inspect_prompt", body({"prompt": text, "negative_prompt": text}))
    images = [("/generate", body(SMALL))] * 4
    answers = await post_all(bounded, [inspection] * 60 + images)
    assert statuses(answers[60:]) == {200: 4}
    counted = statuses(answers[:60])
    assert set(counted) == {200, 429}
    assert counted[200] >= 32
    for answer in answers[:60]:
        assert isinstance(answer, httpx.Response)
        if answer.status_code == 429:
            assert "inspections wait already" in answer.json()["error"]["message"]
            assert int(answer.headers["retry-after"]) >= 1


MANY = {
    "fields": (b'{"requests": [{', b'"a":1,', b'"b":1}]}'),
    "objects": (b'{"requests": [', b"{},", b"{}]}"),
    "objects of an item": (b'{"requests": [{"prompt": [', b"{},", b"{}]}]}"),
    "names": (b'{"requests": [{"', b"a", b'": 1}]}'),
    "brackets": (b'{"requests": ', b"[", b"]}"),
    "strings": (b'{"requests": [', b'"" ', b"]}"),
}


@pytest.mark.parametrize("kind", MANY)
async def test_bodies_of_many_values_are_refused_while_others_are_served(
    bounded: Server, kind: str
) -> None:
    start, middle, end = MANY[kind]
    content = start + middle * ((BODY - len(start + end)) // len(middle)) + end
    images = [("/generate", body(SMALL))] * 2
    answers = await post_all(bounded, [("/generate_batch", content)] * 8 + images)
    assert statuses(answers[8:]) == {200: 2}
    counted = statuses(answers[:8])
    assert set(counted) <= {200, 400, 429}
    assert counted[429] < 8
    for answer in answers[:8]:
        assert isinstance(answer, httpx.Response)
        if answer.status_code == 200:  # the item is refused at its index
            (item,) = answer.json()
            assert item["status"] == "error"
            assert "name of more than 4096 bytes" in item["message"]
    assert "Traceback" not in bounded.log


async def test_all_bodies_together_have_a_bound(bounded: Server) -> None:
    item = SMALL | {"negative_prompt": "blurry " * 4000}
    content = body({"requests": [item] * 64})
    padded = content + b" " * (BODY - len(content))
    before = resident(bounded)
    answers = await post_all(bounded, [("/generate_batch", padded)] * 60)
    counted = statuses(answers)
    assert counted[429] > 0
    assert counted[200] > 0
    assert set(counted) == {200, 429}
    assert resident(bounded) - before < LARGEST_BODIES * MAX_BODY + 32 * MB
    assert_serves(bounded)
    assert "Traceback" not in bounded.log


def test_a_place_in_the_queue_comes_before_the_reading_of_a_prompt(
    store: Store, tmp_path: Path
) -> None:
    environment = store.environment | {"LPW_SDXL_MAX_QUEUED_JOBS": "4"}
    text = "sun sea fox " * 1500
    request = ("/generate", body(SMALL | {"prompt": text, "negative_prompt": text}))
    target = "service:LpwSdxl"
    with serving(target, folder=ROOT, environment=environment, log_file=tmp_path / "log") as server:
        answers = asyncio.run(post_all(server, [request] * 24))
        counted = statuses(answers)
        assert set(counted) == {200, 429}
        # Only those that had a place were read: each line is one prompt.
        assert server.log.count("encoded: ") <= counted[200] + 1
        assert_serves(server)
