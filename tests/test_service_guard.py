"""The border in front of clients: a real `bentoml serve` with tokens, and one without."""

from __future__ import annotations

import gc
import json
import os
import random
import socket
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bentoml
import httpx
import pytest
from bentoml.exceptions import BentoMLException
from PIL import Image

from conftest import ROOT, Store, store_environment
from serving import Server, serving

pytestmark = pytest.mark.processes

FIRST, SECOND, ROTATED = ("token-of-settings-1", "token-of-settings-2", "token-of-the-file-1")
PAGE = "https://app.example.org"
JSON = {"content-type": "application/json"}
BODY_LIMIT = 2 * 32_768 * 12 + 64 * 1024
PICTURES_LIMIT = BODY_LIMIT + 2 * int(2**24 * 4 / 3 * 1.1)
PATHS = {
    "GET": ["/", "/docs.json", "/schema.json", "/metrics"],
    "POST": ["/generate", "/generate_batch", "/inspect_prompt", "/read_parameters", "/info"],
}


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text("# without tokens yet\nanother-token-of-file\n")
    return file


@pytest.fixture(scope="module")
def guarded(
    store: Store, tokens_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    environment = store.environment | {
        "LPW_SDXL_TOKENS": f"{FIRST}, {SECOND}",
        "LPW_SDXL_TOKENS_FILE": str(tokens_file),
        "LPW_SDXL_CORS_ORIGINS": PAGE,
    }
    log_file = tmp_path_factory.mktemp("guarded") / "log"
    target = "service:LpwSdxl"
    with serving(target, folder=ROOT, environment=environment, log_file=log_file) as server:
        yield server


@pytest.fixture
def exposed(plain_server: Server) -> Server:
    """Start a server without tokens on all addresses, the default of `bentoml serve`."""
    return plain_server


@pytest.fixture
def client(guarded: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=60, headers=bearer(FIRST)) as client:
        yield client


@pytest.fixture
def stranger(exposed: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=exposed.url, timeout=60) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def code(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "field"}
    return str(error["code"])


def raw(server: Server, request: bytes, *, seconds: float = 20) -> bytes:
    """Send bytes and return all that comes until the server closes the connection."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), seconds) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    "headers", [{}, bearer("token-that-is-unknown-at-all"), {"authorization": f"Basic {FIRST}"}]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, paths in PATHS.items() for path in paths]
    + [("GET", "/nowhere"), ("OPTIONS", "/generate"), ("DELETE", "/info"), ("HEAD", "/metrics")],
)
def test_everything_but_the_probes_needs_a_token(
    guarded: Server, method: str, path: str, headers: dict[str, str]
) -> None:
    response = httpx.request(method, f"{guarded.url}{path}", headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        assert code(response) == "unauthorized"


def test_probes_need_none(guarded: Server) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert httpx.get(f"{guarded.url}{path}").status_code == 200
        assert httpx.post(f"{guarded.url}{path}").status_code == 405


@pytest.mark.parametrize("token", [FIRST, SECOND, "another-token-of-file"])
def test_each_token_opens_everything(client: httpx.Client, token: str) -> None:
    for path in PATHS["GET"]:
        assert client.get(path, headers=bearer(token)).status_code == 200, path
    response = client.post("/info", json={}, headers=bearer(token))
    assert response.status_code == 200


# BentoML's client leaves its connection to the garbage collector if it gets no schema.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_bentomls_own_client_brings_its_token(guarded: Server) -> None:
    with bentoml.SyncHTTPClient(guarded.url, token=FIRST, timeout=120) as client:
        image = client.generate(prompt="a", num_inference_steps=2)
        assert isinstance(image, Image.Image)
    with pytest.raises(BentoMLException, match="schema"):
        bentoml.SyncHTTPClient(guarded.url, token="token-that-is-unknown-at-all", timeout=10)
    gc.collect()


def test_a_token_that_is_written_into_the_file_counts_without_a_restart(
    client: httpx.Client, tokens_file: Path
) -> None:
    newer = tokens_file.with_name("newer")
    newer.write_text(f"another-token-of-file\n{ROTATED}\n")
    assert client.post("/info", json={}, headers=bearer(ROTATED)).status_code == 401
    os.replace(newer, tokens_file)
    deadline = time.monotonic() + 5
    while client.post("/info", json={}, headers=bearer(ROTATED)).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_thousand_wrong_tokens_are_a_line_or_two(guarded: Server) -> None:
    before = guarded.log
    with httpx.Client(base_url=guarded.url) as client:
        for number in range(1000):
            headers = bearer(f"token-that-is-unknown-{number}")
            assert client.post("/generate", json={}, headers=headers).status_code == 401
    # An answer's line is written after the answer: one of an earlier request may come late.
    lines = [line for line in guarded.log[len(before) :].splitlines() if "/info 200" not in line]
    assert len(lines) <= 2, lines
    assert all(
        "requests without a valid token, the last from 127.0.0.1" in line for line in lines
    ), lines
    assert "token-that-is-unknown" not in guarded.log


def test_a_hundred_requests_that_are_none_are_a_line_or_two(exposed: Server) -> None:
    before = exposed.log
    for _ in range(100):
        assert raw(exposed, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    lines = exposed.log[len(before) :].splitlines()
    assert len(lines) <= 3, lines


def test_a_body_is_not_read_before_the_token(guarded: Server) -> None:
    request = b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    request += b"content-length: 100000\r\nexpect: 100-continue\r\n\r\n"
    answer = raw(guarded, request)
    assert answer.startswith(b"HTTP/1.1 401")  # and no 100 Continue before it
    assert b"connection: close" in answer


def test_a_page_of_an_opened_origin_may_ask(client: httpx.Client, guarded: Server) -> None:
    preflight = httpx.options(
        f"{guarded.url}/generate",
        headers={
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    response = client.post("/info", json={}, headers={"origin": PAGE})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    refused = httpx.post(f"{guarded.url}/info", json={}, headers={"origin": PAGE})
    assert refused.status_code == 401  # whose words the page may read
    assert refused.headers["access-control-allow-origin"] == PAGE
    strange = client.post("/info", json={}, headers={"origin": "https://evil.example.org"})
    assert (strange.status_code, code(strange)) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in strange.headers


def test_who_listens_on_all_addresses_without_a_token_is_warned(
    exposed: Server, guarded: Server
) -> None:
    assert exposed.log.count("LISTENING ON 0.0.0.0 WITHOUT A TOKEN") == 1
    assert "WITHOUT A TOKEN" not in guarded.log


def test_a_strangers_page_cannot_drive_the_server(stranger: httpx.Client, exposed: Server) -> None:
    port = urlsplit(exposed.url).port
    pages = ["https://evil.example.org", "null", "http://localhost:8080", f"https://a:{port}"]
    for page in pages:
        response = stranger.post("/info", json={}, headers={"origin": page})
        assert (response.status_code, code(response)) == (403, "origin_not_allowed"), page
        preflight = stranger.options(
            "/info", headers={"origin": page, "access-control-request-method": "POST"}
        )
        assert preflight.status_code == 405
        assert "access-control-allow-origin" not in preflight.headers
    rebound = {"host": f"evil.example.org:{port}", "origin": f"http://evil.example.org:{port}"}
    assert stranger.post("/info", json={}, headers=rebound).status_code == 403
    own = {"host": f"localhost:{port}", "origin": f"http://localhost:{port}"}
    assert stranger.post("/info", json={}, headers=own).status_code == 200


def test_two_hundred_megabytes_are_refused_unread(exposed: Server) -> None:
    head = b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    started = time.monotonic()
    answer = raw(exposed, head + b"content-length: 200000000\r\n\r\n")  # of which nothing is sent
    assert time.monotonic() - started < 2
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_large"


def test_a_client_that_sends_two_hundred_megabytes_reads_the_answer(
    stranger: httpx.Client,
) -> None:
    response = stranger.post("/generate", content=b"x" * 200_000_000, headers=JSON)
    assert (response.status_code, code(response)) == (413, "body_too_large")
    assert str(PICTURES_LIMIT) in response.json()["error"]["message"]


@pytest.mark.parametrize(("path", "limit"), [("/inspect_prompt", BODY_LIMIT), ("/info", 1024)])
def test_a_chunked_body_is_refused_where_it_is_over(exposed: Server, path: str, limit: int) -> None:
    address = urlsplit(exposed.url)
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    chunk = b"200\r\n" + b" " * 512 + b"\r\n"
    with socket.create_connection((address.hostname, address.port), 20) as connection:
        connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        connection.sendall(chunk * (limit // 512))
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(100)  # as much as is allowed is waited for
        connection.settimeout(20)
        connection.sendall(chunk)
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer


FRAMES = {
    "GET with a body": (b"GET /metrics", b"content-length: 2\r\n\r\n{}", 413),
    "GET with chunks": (b"GET /metrics", b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    "a probe with a body": (b"GET /livez", b"content-length: 200000000\r\n\r\n", 413),
    "two kinds of length": (
        b"POST /info",
        b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (b"POST /info", b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
    "a length of no number": (b"POST /info", b"content-length: x\r\n\r\n{}", 400),
    "a negative length": (b"POST /info", b"content-length: -2\r\n\r\n{}", 400),
    "101 headers": (b"GET /metrics", b"x: y\r\n" * 101 + b"\r\n", 431),
    "20 kB of headers": (b"GET /metrics", b"x: " + b"y" * 20_000 + b"\r\n\r\n", 431),
}


@pytest.mark.parametrize(("line", "rest", "status"), FRAMES.values(), ids=FRAMES.keys())
def test_a_request_of_an_odd_frame_is_answered(
    exposed: Server, line: bytes, rest: bytes, status: int
) -> None:
    head = line + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n"
    assert raw(exposed, head + rest).startswith(b"HTTP/1.1 %d" % status)


def test_a_body_longer_than_its_length_is_no_part_of_the_request(exposed: Server) -> None:
    head = b"POST /info HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    answer = raw(exposed, head + b"content-length: 2\r\n\r\n{}{}{}{}\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 400" in answer  # the rest, which is no request


def test_an_endpoint_names_the_method_it_takes(stranger: httpx.Client) -> None:
    response = stranger.get("/generate")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    response = stranger.post("/metrics")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


def test_random_paths_methods_and_headers_make_no_metrics(
    stranger: httpx.Client, exposed: Server
) -> None:
    def lines() -> int:
        return len(stranger.get("/metrics").text.splitlines())

    def word() -> str:
        return "".join(chance.choices(string.ascii_letters, k=12))

    chance = random.Random(5)
    for method, paths in PATHS.items():
        for path in paths:
            stranger.request(method, path, json={} if method == "POST" else None)
    before = lines()
    places = [
        "",
        "/generate",
        "/ui",
        "/ui/main.js",
        "/livez",
        "/docs.json",
    ]
    for number in range(300):
        assert stranger.get(f"{places[number % 6]}/{word()}").status_code == 404
        assert stranger.request(word().upper(), chance.choice(PATHS["POST"])).status_code == 405
        stranger.post("/info", json={}, headers={word(): word(), "origin": f"http://{word()}"})
    for path in ("//generate", "/generate/", "/ui/./main.js", "/ui//a"):
        stranger.get(path)
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    for _ in range(5):
        head = f"GET /{word()} HTTP/1.1\r\nhost: a\r\nsec-websocket-key: {'A' * 22}==\r\n".encode()
        raw(exposed, head + upgrade + b"\r\n", seconds=10)
    assert lines() == before


BAD_STARTS = {
    "a short token": ({"LPW_SDXL_TOKENS": f"{FIRST} canary"}, "token 2 of 2 has 6 characters"),
    "no token": ({"LPW_SDXL_TOKENS": ""}, "LPW_SDXL_TOKENS holds no token"),
    "no file": ({"LPW_SDXL_TOKENS_FILE": "/nowhere/canary"}, "can't be read"),
    "no origin": ({"LPW_SDXL_CORS_ORIGINS": "app.example.org"}, "app.example.org is no origin"),
    "no yes or no": ({"LPW_SDXL_OPEN_METRICS": "perhaps"}, "LPW_SDXL_OPEN_METRICS"),
}


@pytest.mark.parametrize(("variables", "words"), BAD_STARTS.values(), ids=BAD_STARTS.keys())
def test_a_guard_that_cannot_be_set_up_ends_the_start(
    store: Store, tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    (tmp_path / "models").symlink_to(store.home / "models")
    command = [sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl", "--port", "0"]
    environment = store_environment(tmp_path) | variables
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    (line,) = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
    assert line.startswith(f"lpw-sdxl: {next(iter(variables))}")
    assert words in line
    assert FIRST not in line
    assert "canary" not in line.replace("/nowhere/canary", "")


def values(response: httpx.Response) -> dict[str, Any]:
    return dict(line.rsplit(" ", 1) for line in response.text.splitlines() if line[0] != "#")


def test_refusals_are_counted_by_code(client: httpx.Client, guarded: Server) -> None:
    name = 'lpw_sdxl_errors_total{code="unauthorized"}'
    before = float(values(client.get("/metrics"))[name])
    httpx.get(f"{guarded.url}/metrics")
    assert float(values(client.get("/metrics"))[name]) == before + 1
