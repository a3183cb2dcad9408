"""Streams and jobs over real HTTP: events, owners, and clients that leave or read slowly."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import io
import json
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bentoml
import httpx
import psutil
import pytest
from bentoml.exceptions import BentoMLException
from PIL import Image

from conftest import ROOT, Store
from lpw_sdxl.client import Event, events
from serving import Server, serving

pytestmark = pytest.mark.processes

FIRST, SECOND = "token-of-the-first-client", "token-of-the-second-client"
SHORT = {"prompt": "a", "num_inference_steps": 5, "seed": 1}
# Some ten seconds of work; of a size of which several share a call.
LONG = {"prompt": "a", "num_inference_steps": 999, "seed": 1}
SETTINGS = {"LPW_SDXL_MAX_STEPS": "999", "LPW_SDXL_HOSTS": "images.example.org"}


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log_file = tmp_path_factory.mktemp("open") / "log"
    target, environment = "service:LpwSdxl", store.environment | SETTINGS
    with serving(target, folder=ROOT, environment=environment, log_file=log_file) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = store.environment | SETTINGS | {"LPW_SDXL_TOKENS": f"{FIRST} {SECOND}"}
    log_file = tmp_path_factory.mktemp("guarded") / "log"
    target = "service:LpwSdxl"
    with serving(target, folder=ROOT, environment=environment, log_file=log_file) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def stream(client: httpx.Client, path: str = "/generate_stream", **body: Any) -> list[Event]:
    with client.stream("POST", path, json=body) as response:
        assert response.status_code == 200, response.read()
        return list(events(response.iter_raw()))


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def jobs_under_way(client: httpx.Client) -> int:
    counts: dict[str, int] = client.post("/info", json={}).json()["engine"]
    return counts["queued_jobs"]


@contextmanager
def begun(client: httpx.Client, **body: Any) -> Iterator[Iterator[Event]]:
    """Begin a stream, read it up to its first progress, and close it at the end of the block."""
    with client.stream("POST", "/generate_stream", json=LONG | body) as response:
        assert response.status_code == 200
        reading = events(response.iter_raw())
        assert next(reading).name == "queued"
        assert next(reading).name == "progress"
        yield reading
    until(lambda: jobs_under_way(client) == 0)


def test_a_stream_ends_with_the_image_that_generate_makes(client: httpx.Client) -> None:
    told = stream(client, **SHORT, preview_every=2, request_id="a-name")
    assert told[0].data["request_id"] == "a-name"
    assert [event.name for event in told[1:-1]] == ["progress"] * (len(told) - 2)
    plain = client.post("/generate", json=SHORT)
    assert base64.b64decode(told[-1].data["image"]) == plain.content
    assert told[-1].data["seed"] == int(plain.headers["x-seed"])
    previews = [event.data["preview"] for event in told[1:-1] if event.data["preview"]]
    for preview in previews:
        with Image.open(io.BytesIO(base64.b64decode(preview))) as picture:
            assert (picture.format, picture.size) == ("JPEG", (16, 16))


def test_every_answer_has_one_id(client: httpx.Client) -> None:
    named = client.post("/generate", json=SHORT | {"request_id": "my.own_name-1"})
    assert named.headers["x-request-id"] == "my.own_name-1"
    for response in (
        client.post("/generate", json=SHORT),
        client.post("/generate", json={"prompt": 5}),
        client.get("/livez"),
        client.get("/nowhere"),
        client.get("/metrics"),
        client.post("/inspect_prompt", json={"prompt": "a"}),
    ):
        assert len(response.headers["x-request-id"]) == 32
    with client.stream("POST", "/generate_stream", json=SHORT) as response:
        first = next(events(response.iter_raw()))
        assert first.data["request_id"] == response.headers["x-request-id"]


def test_bentomls_clients_yield_pieces_that_become_events(server: Server) -> None:
    with bentoml.SyncHTTPClient(server.url, timeout=60) as client:
        names = [one.name for one in events(client.generate_stream(**SHORT, preview_every=1))]
    assert (names[0], names[-1]) == ("queued", "image")
    with (
        bentoml.SyncHTTPClient(server.url, timeout=60) as client,
        pytest.raises(BentoMLException, match="width is 7"),
    ):
        list(events(client.generate_stream(**SHORT, width=7)))

    async def listen() -> list[Event]:
        async with bentoml.AsyncHTTPClient(server.url, timeout=60) as client:
            pieces = client.generate_batch_stream(requests=[SHORT, {"prompt": "b", "width": 7}])
            return [event async for event in events(pieces)]

    told = asyncio.run(listen())
    assert {event.data["index"] for event in told if event.name == "error"} == {1}
    assert {event.data["index"] for event in told if event.name == "image"} == {0}


def test_refusals_come_before_the_first_event(client: httpx.Client) -> None:
    for body, status, field in (
        ({"prompt": "a", "width": 7}, 400, "width"),
        ({"prompt": "a", "preview_every": -1}, 400, "preview_every"),
        ({"prompt": "a", "loras": [{"name": "absent"}]}, 400, "loras.0.name"),
        ({"prompt": "a", "request_id": "no blanks"}, 400, "request_id"),
    ):
        refused = client.post("/generate_stream", json=body)
        assert (refused.status_code, refused.json()["error"]["field"]) == (status, field)
        assert refused.headers["content-type"] == "application/json"


def test_an_id_that_is_in_use_is_refused(client: httpx.Client) -> None:
    with begun(client, request_id="in-use"):
        for path, extra in (("/generate", {}), ("/generate_stream", {"preview_every": 1})):
            refused = client.post(path, json=SHORT | {"request_id": "in-use"} | extra)
            code = refused.json()["error"]["code"]
            assert (refused.status_code, code) == (409, "request_id_in_use")
    assert client.post("/generate", json=SHORT | {"request_id": "in-use"}).status_code == 200


def test_closing_a_stream_frees_its_rows_within_a_step(client: httpx.Client) -> None:
    with begun(client):
        assert jobs_under_way(client) == 1
        before = client.post("/info", json={}).json()["engine"]["left"]
        started = time.monotonic()
    assert time.monotonic() - started < 5  # a step takes a fraction of a second
    assert client.post("/info", json={}).json()["engine"]["left"] == before + 1


def test_a_job_is_listed_shown_with_a_preview_and_cancelled(
    server: Server, client: httpx.Client
) -> None:
    with begun(client, request_id="shown") as reading:
        [listed] = [one for one in client.get("/jobs").json() if one["request_id"] == "shown"]
        assert (listed["state"], listed["calls"], listed["preview"]) == ("running", 999, None)
        until(lambda: client.get("/jobs/shown").json()["preview"] is not None)
        preview = base64.b64decode(client.get("/jobs/shown").json()["preview"])
        with Image.open(io.BytesIO(preview)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (16, 16))
        assert client.delete("/jobs/shown").json()["state"] == "cancelled"
        *_, last = reading
        assert (last.name, last.data["error"]["code"]) == ("error", "cancelled")
    line = re.compile(r"POST /generate_stream 200 cancelled \d+ ms shown$", re.MULTILINE)
    until(lambda: line.search(server.log) is not None)
    for missing in (client.get("/jobs/shown"), client.delete("/jobs/shown")):
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_a_cancelled_image_is_a_409_for_its_plain_request(client: httpx.Client) -> None:
    async def both() -> httpx.Response:
        async with httpx.AsyncClient(base_url=str(client.base_url), timeout=60) as two:
            body = LONG | {"request_id": "stopped"}
            making = asyncio.ensure_future(two.post("/generate", json=body))
            while (await two.delete("/jobs/stopped")).status_code != 200:
                await asyncio.sleep(0.02)
            return await making

    answer = asyncio.run(both())
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")


def test_items_of_a_batch_are_jobs_too(client: httpx.Client) -> None:
    body = {"requests": [SHORT, SHORT | {"request_id": "mine"}]}
    answer = client.post("/generate_batch", json=body)
    own = answer.headers["x-request-id"]
    states = {one["request_id"]: one["state"] for one in client.get("/jobs").json()}
    assert states[f"{own}-0"] == states["mine"] == "done"


def test_each_address_sees_and_cancels_its_own_jobs_only(server: Server) -> None:
    def client_at(address: str) -> httpx.Client:
        transport = httpx.HTTPTransport(local_address=address)
        return httpx.Client(base_url=server.url, timeout=60, transport=transport)

    with client_at("127.0.0.1") as one, client_at("127.0.0.2") as other:
        assert_apart(one, other)


def test_each_token_sees_and_cancels_its_own_jobs_only(guarded: Server) -> None:
    def client_with(token: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=guarded.url, timeout=60, headers=headers)

    with client_with(FIRST) as one, client_with(SECOND) as other:
        assert_apart(one, other)
        # With a token, the name under which a server is reached is of no account.
        one.post("/generate", json=SHORT | {"request_id": "named"})
        assert one.get("/jobs/named", headers={"host": "images.example.org"}).status_code == 200
    assert httpx.get(f"{guarded.url}/jobs").status_code == 401
    assert httpx.delete(f"{guarded.url}/jobs/named").status_code == 401
    assert FIRST not in guarded.log


def assert_apart(one: httpx.Client, other: httpx.Client) -> None:
    """Check that two owners with jobs of the same id have nothing of each other's."""
    with (
        begun(one, request_id="same") as reading,
        begun(other, request_id="only-the-others") as others_reading,
    ):
        states = {job["request_id"]: job["state"] for job in one.get("/jobs").json()}
        assert states["same"] == "running"
        assert "only-the-others" not in states
        assert other.get("/jobs/same").status_code == 404
        assert other.delete("/jobs/same").status_code == 404
        assert one.delete("/jobs/only-the-others").status_code == 404
        # The other's job of the same id is another one.
        assert other.post("/generate", json=SHORT | {"request_id": "same"}).status_code == 200
        assert other.get("/jobs/same").json()["state"] == "done"
        assert one.get("/jobs/same").json()["state"] == "running"
        for owner, name, told in (
            (one, "same", reading),
            (other, "only-the-others", others_reading),
        ):
            assert owner.delete(f"/jobs/{name}").status_code == 200
            *_, last = told
            assert last.data["error"]["code"] == "cancelled"


def test_under_a_strangers_name_there_are_no_jobs(client: httpx.Client) -> None:
    client.post("/generate", json=SHORT | {"request_id": "hidden"})
    rebound = {"host": "evil.example.org"}
    assert client.get("/jobs", headers=rebound).json() == []
    assert client.get("/jobs/hidden", headers=rebound).status_code == 404
    assert client.delete("/jobs/hidden", headers=rebound).status_code == 404
    assert client.get("/jobs/hidden").status_code == 200
    listed = {"host": "images.example.org:8443"}
    assert client.get("/jobs/hidden", headers=listed).status_code == 200
    # Images are made under any name.
    assert client.post("/generate", json=SHORT, headers=rebound).status_code == 200


def head(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    return (
        b"POST /generate_stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(content), content)
    )


def connect(server: Server, body: dict[str, Any]) -> socket.socket:
    address = urlsplit(server.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(30)
    client.connect((address.hostname, address.port))
    client.sendall(head(body))
    return client


def vanish(client: socket.socket) -> None:
    """Make a client's system take nothing more from the network: no byte, no FIN, no RST."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    option = struct.pack("HP", 1, ctypes.addressof(program))
    client.setsockopt(socket.SOL_SOCKET, 26, option)  # SO_ATTACH_FILTER


def read_nothing(_client: socket.socket) -> None:
    """Leave all in the system's buffer."""


def read_slowly(client: socket.socket) -> None:
    """Read a byte."""
    client.recv(1)


@pytest.mark.parametrize(
    "behave", [read_nothing, read_slowly, vanish], ids=lambda one: one.__name__
)
def test_a_client_that_does_not_read_delays_nobody(
    server: Server, client: httpx.Client, behave: Callable[[socket.socket], None]
) -> None:
    body = LONG | {"num_inference_steps": 100, "preview_every": 1, "request_id": behave.__name__}
    with connect(server, body) as slow:
        first = slow.recv(12)
        assert first == b"HTTP/1.1 200"
        behave(slow)
        last = time.monotonic()
        while (job := client.get(f"/jobs/{behave.__name__}").json())["state"] != "done":
            assert job["state"] in ("queued", "running")
            if behave is read_slowly and time.monotonic() - last >= 1:
                behave(slow)
                last = time.monotonic()
            assert client.post("/generate", json=SHORT).status_code == 200
    until(lambda: jobs_under_way(client) == 0)


def worker_of(server: Server) -> psutil.Process:
    """The process with the most memory is the one that has the model."""
    command = psutil.Process(server.process.pid)
    return max([command, *command.children(True)], key=lambda one: one.memory_info().rss)


@pytest.mark.thorough
def test_streams_that_are_closed_at_any_moment_leave_nothing(
    server: Server, client: httpx.Client
) -> None:
    worker = worker_of(server)
    temporary = Path(f"/proc/{worker.pid}/fd")

    def close_some(count: int, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(count):
            body = SHORT | {"preview_every": 1, "num_inference_steps": 20}
            with connect(server, body) as one:
                one.settimeout(rng.uniform(0.0, 0.2) + 0.001)
                try:
                    while one.recv(512):
                        pass
                except TimeoutError:
                    pass
        until(lambda: jobs_under_way(client) == 0)
        time.sleep(0.5)

    close_some(10, seed=0)  # what is made once
    files = len([*temporary.iterdir()])
    threads = worker.num_threads()
    close_some(20, seed=1)
    assert len([*temporary.iterdir()]) <= files + 2
    assert worker.num_threads() <= threads + 2
    assert "Traceback" not in server.log
    assert "never awaited" not in server.log


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_client_that_vanished_keeps_no_image_for_long(
    server: Server, client: httpx.Client
) -> None:
    """Its system acknowledges nothing: after two minutes the connection ends, and so the job."""
    body = LONG | {"width": 1024, "height": 1024, "preview_every": 1, "request_id": "vanished"}
    with connect(server, body) as vanished:
        assert vanished.recv(12) == b"HTTP/1.1 200"
        vanish(vanished)
        state = lambda: client.get("/jobs/vanished").json()["state"]  # noqa: E731
        until(lambda: state() == "cancelled", seconds=200)
    until(lambda: jobs_under_way(client) == 0)
