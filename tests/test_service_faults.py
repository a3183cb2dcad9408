"""The real service where things go wrong: its engine ends, clients disconnect, too many come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from conftest import ROOT, Store
from serving import Server, serving

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

LONG = {"prompt": "a", "num_inference_steps": 150, "width": 64, "height": 64}
SHORT = LONG | {"num_inference_steps": 2}
HUGE = LONG | {"width": 512, "height": 512}
DEADLY, PARALYSING = "the thread ends here", "the thread hangs here"  # to breakable_service.py
FULL = 8  # images with guidance in one UNet call


@contextlib.contextmanager
def service(
    store: Store, folder: Path, target: str = "service:LpwSdxl", **settings: str
) -> Iterator[Server]:
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = store.environment | {"PYTHONPATH": path} | settings
    with serving(target, folder=ROOT, environment=environment, log_file=folder / "log") as server:
        yield server


@pytest.fixture
def server(plain_server: Server) -> Server:
    return plain_server


@contextlib.asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        yield client


async def generate(client: httpx.AsyncClient, fields: dict[str, Any]) -> httpx.Response:
    return await client.post("/generate", json=fields)


async def counters(client: httpx.AsyncClient) -> dict[str, Any]:
    engine: dict[str, Any] = (await client.post("/info", json={})).json()["engine"]
    return engine


async def until(
    client: httpx.AsyncClient, happened: Callable[[dict[str, Any]], bool], seconds: float = 60
) -> None:
    """Wait until the engine's counters have these values."""
    async with asyncio.timeout(seconds):
        while not happened(await counters(client)):
            await asyncio.sleep(0.02)


async def start(
    client: httpx.AsyncClient, count: int, fields: dict[str, Any] = LONG
) -> list[asyncio.Task[httpx.Response]]:
    """Send requests and wait until the engine has all of them and computes steps of some."""
    before = await counters(client)
    tasks = [asyncio.create_task(generate(client, fields | {"seed": n})) for n in range(count)]
    await until(client, lambda now: now["queued_jobs"] == before["queued_jobs"] + count)
    return tasks


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def worker_of(server: Server) -> psutil.Process:
    """Find the process that holds the engine."""
    [worker] = [
        child
        for child in psutil.Process(server.process.pid).children(recursive=True)
        if "_bentoml_impl.worker.service" in child.cmdline()
    ]
    return worker


async def assert_all_clients_get_the_error(client: httpx.AsyncClient, last_words: str) -> None:
    """Break the engine during work: all clients get the error, and the probes fail."""
    tasks = await start(client, FULL + 2)
    tasks.append(asyncio.create_task(generate(client, SHORT | {"prompt": last_words})))
    answers = await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert {code_of(answer) for answer in answers} == {(503, "unavailable")}
    assert code_of(await generate(client, SHORT)) == (503, "unavailable")
    assert [(await client.get(path)).status_code for path in ("/readyz", "/livez")] == [503, 503]


async def assert_it_comes_back(server: Server) -> None:
    async with asyncio.timeout(60), client_of(server) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.post("/generate", json=SHORT, timeout=30)
                if answer.status_code == 200:
                    return
            await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def breakable(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server whose worker a test may end: each test waits for the next one."""
    folder = tmp_path_factory.mktemp("breakable")
    with service(store, folder, "breakable_service:LpwSdxl", LPW_SDXL_STALL_S="2") as server:
        yield server


@pytest.mark.parametrize(
    ("last_words", "line"),
    [
        pytest.param(DEADLY, "the engine's thread has ended", id="its thread ends"),
        pytest.param(PARALYSING, "has not moved for 2 s", id="its thread hangs"),
    ],
)
async def test_a_broken_engine_is_told_to_all_and_a_new_worker_serves_on(
    breakable: Server, last_words: str, line: str
) -> None:
    before = breakable.log
    async with client_of(breakable) as client:
        await assert_all_clients_get_the_error(client, last_words)
    await assert_it_comes_back(breakable)
    gained = breakable.log[len(before) :]
    assert f"{line}; this process ends" in gained
    assert gained.count("model loaded in") == 1
    assert breakable.log.count(" found: ") == 1  # the supervisor is the same


async def test_a_worker_that_is_told_to_end_alone_is_followed_by_one_that_listens(
    breakable: Server,
) -> None:
    worker = worker_of(breakable)
    worker.send_signal(signal.SIGTERM)
    await asyncio.to_thread(worker.wait, 30)
    await assert_it_comes_back(breakable)


@pytest.mark.slow
async def test_in_a_container_a_broken_engine_ends_the_whole_command(
    store: Store, tmp_path: Path
) -> None:
    with service(
        store, tmp_path, "breakable_service:LpwSdxl", BENTOML_CONTAINERIZED="true"
    ) as server:
        async with client_of(server) as client:
            await assert_all_clients_get_the_error(client, DEADLY)
        await asyncio.to_thread(server.process.wait, 30)


@pytest.mark.slow
async def test_sigterm_answers_all_that_was_accepted(store: Store, tmp_path: Path) -> None:
    with service(store, tmp_path) as server:
        async with client_of(server) as client:
            tasks = await start(client, FULL * 2, LONG | {"num_inference_steps": 40})
            await until(client, lambda engine: bool(engine["unet_calls_by_jobs"]))
            server.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*tasks)
            assert {answer.status_code for answer in answers} == {200}
            with pytest.raises(httpx.TransportError):
                async with httpx.AsyncClient(base_url=server.url, timeout=10) as latecomer:
                    await generate(latecomer, SHORT)
        await asyncio.to_thread(server.process.wait, 30)
        assert server.process.returncode == 0
        assert "Traceback" not in server.log


async def test_three_of_eight_clients_leave_and_the_others_get_their_images(
    server: Server,
) -> None:
    async with client_of(server) as client:
        before = await counters(client)
        tasks = await start(client, FULL, LONG | {"num_inference_steps": 90})
        for task in tasks[2:5]:
            task.cancel()
        await until(client, lambda now: now["left"] == before["left"] + 3, seconds=1)
        assert (await counters(client))["queued_jobs"] == 5
        answers = await asyncio.gather(*tasks[:2], *tasks[5:])
        assert [answer.status_code for answer in answers] == [200] * 5
        after = await counters(client)
    assert after["images"] == before["images"] + 5
    assert after["failed"] == before["failed"]


async def test_a_client_that_leaves_the_queue_or_a_batch_takes_its_jobs_along(
    server: Server,
) -> None:
    async with client_of(server) as client:
        tasks = await start(client, FULL + 1)
        before = await counters(client)
        tasks[-1].cancel()  # the others fill the calls: it waits
        await until(client, lambda now: now["left"] == before["left"] + 1, seconds=1)
        batch = asyncio.create_task(client.post("/generate_batch", json={"requests": [LONG] * 3}))
        await until(client, lambda now: now["queued_jobs"] == FULL + 3)
        batch.cancel()
        await until(client, lambda now: now["left"] == before["left"] + 4, seconds=1)
        for task in tasks:
            task.cancel()
        await until(client, lambda now: now["queued_jobs"] == 0)


async def test_a_connection_is_used_again(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        addresses = set()
        for body in (SHORT, SHORT | {"width": 1}, SHORT, LONG | {"deadline_s": 0.05}, SHORT):
            answer = await generate(client, body)
            addresses.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(addresses) == 1


async def test_a_deadline_that_is_too_short_is_told_at_once(server: Server) -> None:
    async with client_of(server) as client:
        started = time.monotonic()
        answer = await generate(client, LONG | {"deadline_s": 0.2})
        assert code_of(answer) == (408, "deadline_exceeded")
        assert answer.json()["error"]["field"] == "deadline_s"
        assert time.monotonic() - started < 2
        assert (await counters(client))["queued_jobs"] == 0


async def test_the_servers_time_limit_is_told_and_frees_the_device(
    store: Store, tmp_path: Path
) -> None:
    with service(store, tmp_path, LPW_SDXL_TIME_LIMIT_S="2") as server:
        async with client_of(server) as client:
            started = time.monotonic()
            assert code_of(await generate(client, HUGE)) == (504, "timeout")
            assert time.monotonic() - started < 6  # the limit, and the step under way
            assert (await counters(client))["queued_jobs"] == 0
            assert (await generate(client, SHORT)).status_code == 200


@pytest.fixture(scope="module")
def small_server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server that accepts little work: 16 images, 100 megapixel steps."""
    folder = tmp_path_factory.mktemp("service")
    limits = {"LPW_SDXL_MAX_QUEUED_JOBS": str(2 * FULL), "LPW_SDXL_MAX_QUEUED_COST": "100"}
    with service(store, folder, **limits) as server:
        yield server


async def test_work_beyond_the_queues_limit_is_told_to_come_back(small_server: Server) -> None:
    async with client_of(small_server) as client:
        [under_way] = await start(client, 1, HUGE | {"num_inference_steps": 120})  # 63 of 100
        answer = await generate(client, HUGE | {"num_inference_steps": 120})
        assert code_of(answer) == (429, "overloaded")
        assert "megapixel steps" in answer.json()["error"]["message"]
        assert int(answer.headers["retry-after"]) >= 1
        too_much = await generate(client, HUGE | {"width": 1024})  # 157
        assert code_of(too_much) == (400, "invalid_request")
        assert too_much.json()["error"]["field"] == "num_inference_steps"
        under_way.cancel()
        await until(client, lambda now: now["queued_jobs"] == 0)


@pytest.mark.slow
async def test_ten_times_too_many_are_refused_quickly_and_the_rest_is_made(
    small_server: Server, record_property: Callable[[str, object], None]
) -> None:
    asked = LONG | {"num_inference_steps": 20}
    refusals: list[float] = []

    async def one(client: httpx.AsyncClient) -> int:
        began = time.monotonic()
        answer = await generate(client, asked)
        if answer.status_code == 429:
            refusals.append(time.monotonic() - began)
            assert int(answer.headers["retry-after"]) >= 1
        return answer.status_code

    async with client_of(small_server) as client:
        await asyncio.gather(*[generate(client, asked) for _ in range(FULL)])
        started = time.monotonic()
        await asyncio.gather(*[generate(client, asked) for _ in range(FULL)])
        pause = (time.monotonic() - started) / FULL / 10
        tasks = []
        end = time.monotonic() + 10
        while time.monotonic() < end:
            tasks.append(asyncio.create_task(one(client)))
            await asyncio.sleep(pause)
        statuses = await asyncio.gather(*tasks)
        assert (await generate(client, SHORT)).status_code == 200
    assert set(statuses) == {200, 429}
    record_property("requests", len(statuses))
    record_property("images", statuses.count(200))
    record_property("refusal_median_s", statistics.median(refusals))
    record_property("refusal_p99_s", statistics.quantiles(refusals, n=100)[98])
    assert statistics.median(refusals) < 0.1
    assert "Traceback" not in small_server.log
