from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from h11 import LocalProtocolError

from lpw_sdxl.api.access_tokens import AccessTokens
from lpw_sdxl.api.endpoint_table import EndpointTable
from lpw_sdxl.api.endpoints import Answer, Body, Endpoint, Payload, take_request
from lpw_sdxl.api.guard import Admission, RequestGuard
from lpw_sdxl.api.operation import PING, PROBES, operation_endpoints
from lpw_sdxl.errors import InvalidRequestError, LpwSdxlError, StartingError, UnavailableError
from lpw_sdxl.schema import GenerationRequest
from lpw_sdxl.settings import Settings, read_settings

SECRET = "a secret prompt"
TOKEN = "a-token-of-some-length"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """A small ASGI application that answers as BentoML would, in other shapes than ours."""
    answers = {
        "/generate": (200, take_request({**scope}, bytes) if scope["path"] == "/generate" else b""),
        "/missing": (404, b"Not Found"),
        "/generate/": (307, b""),
        "/listed": (400, b'[{"error": "a list"}]'),
        "/broken": (500, b'{"error": "An unexpected error has occurred"}'),
        "/odd": (418, b"x" * 200_000),
        "/ours": (429, b'{"error": {"code": "overloaded", "message": "m", "field": null}}'),
    }
    status, content = answers[scope["path"]]
    headers = [(b"content-type", b"text/plain"), (b"retry-after", b"7")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    half = len(content) // 2
    await send({"type": "http.response.body", "body": content[:half], "more_body": True})
    await send({"type": "http.response.body", "body": content[half:], "more_body": False})


def refuse_bad(payload: Payload) -> bytes:
    if b"forged" in payload.content:
        raise InvalidRequestError("no such field", field=next(iter(json.loads(payload.content))))
    if b"bad" in payload.content:
        raise InvalidRequestError("width is wrong", field="width")
    return payload.content


@dataclass
class Running:
    """The part of a running service that probes read."""

    is_alive: bool
    is_ready: bool
    is_starting: bool = False
    engine: Any = None
    previews: Any = None

    def encode_file(self, image: Any) -> bytes:
        raise AssertionError(image)


def reading(path: str) -> Endpoint:
    return Endpoint(("GET", "HEAD"), path, "", Answer(""))


GENERATE = Endpoint(
    ("POST",), "/generate", "", Answer(""), body=Body(refuse_bad, 100, GenerationRequest)
)
OTHERS = [*map(reading, ("/missing", "/generate/", "/listed", "/broken", "/odd", "/ours", "/x"))]


def guard_of(
    app: Any, *rows: Endpoint, tokens: AccessTokens | None = None, **options: Any
) -> RequestGuard:
    return RequestGuard(app, EndpointTable(rows), Admission(tokens), **options)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=guard_of(application, GENERATE, *OTHERS))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "field"}
    return error


async def test_a_good_request_passes_with_its_body(client: httpx.AsyncClient) -> None:
    response = await client.post("/generate", json={"prompt": "a"})
    assert response.status_code == 200
    assert response.json() == {"prompt": "a"}


async def test_a_bad_request_is_refused_before_the_application(client: httpx.AsyncClient) -> None:
    response = await client.post("/generate", json={"prompt": "bad"})
    assert response.status_code == 400
    assert error_of(response) == {
        "code": "invalid_request",
        "message": "width is wrong",
        "field": "width",
    }


@pytest.mark.parametrize("media_type", ["text/plain", "multipart/form-data; boundary=x", None])
async def test_a_body_that_is_not_json_by_name_is_refused(
    client: httpx.AsyncClient, media_type: str | None
) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    response = await client.post("/generate", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert error_of(response)["code"] == "unsupported_media_type"


async def test_a_charset_behind_the_media_type_is_allowed(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/JSON; charset=utf-8"}
    assert (await client.post("/generate", content=b"{}", headers=headers)).status_code == 200


async def test_a_body_over_the_limit_is_refused_while_it_arrives(client: httpx.AsyncClient) -> None:
    arrived = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal arrived
        for _ in range(1000):
            arrived += 1
            yield b"x" * 60

    headers = {"content-type": "application/json"}
    response = await client.post("/generate", content=chunks(), headers=headers)
    assert response.status_code == 413
    assert "100 bytes" in error_of(response)["message"]
    assert arrived < 10


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/missing", 404, "not_found"),
        ("/generate/", 404, "not_found"),
        ("/listed", 400, "invalid_request"),
        ("/broken", 500, "internal"),
        ("/odd", 418, "invalid_request"),
    ],
)
async def test_a_foreign_error_gets_the_one_shape(
    client: httpx.AsyncClient, path: str, status: int, code: str
) -> None:
    response = await client.get(path)
    assert response.status_code == status
    assert error_of(response)["code"] == code


async def test_an_error_of_ours_keeps_its_headers(client: httpx.AsyncClient) -> None:
    response = await client.get("/ours")
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert error_of(response)["code"] == "overloaded"


async def test_each_request_writes_one_line_and_no_prompt(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lpw_sdxl"):
        answers = [
            await client.post("/generate", json={"prompt": SECRET}),
            await client.post("/generate", json={"prompt": f"bad {SECRET}"}),
            await client.get("/ours", params={"prompt": SECRET}),
        ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" ")[:3] for line in lines] == [
        ["POST", "/generate", "200"],
        ["POST", "/generate", "400"],
        ["GET", "/ours", "429"],
    ]
    assert "invalid_request width" in lines[1]
    assert [line.split(" ")[-1] for line in lines] == ids
    assert SECRET not in "".join(lines)


async def test_a_path_cannot_forge_a_log_line(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lpw_sdxl"):
        await client.post("/a%0aforged")
    assert "\n" not in caplog.records[-1].getMessage()


async def test_a_field_that_a_client_made_up_is_not_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lpw_sdxl"):
        response = await client.post("/generate", json={f"x\n{SECRET}": "forged"})
    assert response.status_code == 400
    (record,) = caplog.records
    assert record.getMessage().startswith("POST /generate 400 invalid_request (unknown field)")


@pytest.mark.parametrize("name", ["4111111111111111", "prompt.4111111111111111", "٣"])
async def test_a_number_that_a_client_made_a_field_of_is_not_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with caplog.at_level(logging.INFO, logger="lpw_sdxl"):
        await client.post("/generate", json={name: "forged"})
    assert "(unknown field)" in caplog.records[-1].getMessage()


async def test_any_error_of_ours_while_a_body_is_parsed_is_its_answer() -> None:
    def busy(payload: Payload) -> object:
        raise UnavailableError("not now")

    row = Endpoint(("POST",), "/busy", "", Answer(""), body=Body(busy, 100))
    transport = httpx.ASGITransport(app=guard_of(application, row))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/busy", json={})
    assert (response.status_code, error_of(response)["code"]) == (503, "unavailable")


async def test_an_application_that_fails_is_a_500_in_our_shape(client: httpx.AsyncClient) -> None:
    response = await client.get("/x")  # which the application does not have
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal"


async def test_a_body_that_does_not_come_is_given_up() -> None:
    guard = guard_of(application, GENERATE, body_seconds=0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = {"content-type": "application/json"}
        response = await client.post("/generate", content=slow(), headers=headers)
    assert response.status_code == 408
    assert error_of(response)["code"] == "timeout"


async def test_errors_are_counted_by_their_codes_and_unknown_paths_get_no_further() -> None:
    codes: list[str] = []
    asked: list[str] = []

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await application(scope, receive, send)

    rows = (GENERATE, reading("/ours"), reading("/files/a"))
    guard = guard_of(noted, *rows, count_error=codes.append)
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/random", "/ours", "/files/b", "/ours/x"):
            await client.get(path)
        await client.post("/generate", content=b"bad", headers={"content-type": "text/plain"})
        await client.post("/generate", json="bad")
        await client.post("/generate", json="good")
    assert asked == ["/ours", "/generate"]
    assert codes == [
        *("not_found", "overloaded", "not_found", "not_found"),
        *("unsupported_media_type", "invalid_request"),
    ]


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with its path, without reading its body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def tokens_of(monkeypatch: pytest.MonkeyPatch) -> AccessTokens:
    monkeypatch.setenv("LPW_SDXL_TOKENS", TOKEN)
    tokens = AccessTokens.from_settings(read_settings(Settings))
    assert tokens is not None
    return tokens


@pytest.mark.parametrize("are_probes_open", [False, True])
@pytest.mark.parametrize("are_metrics_open", [False, True])
async def test_probes_and_metrics_are_opened_apart(
    monkeypatch: pytest.MonkeyPatch, are_probes_open: bool, are_metrics_open: bool
) -> None:
    settings = Settings(open_probes=are_probes_open, open_metrics=are_metrics_open)
    guard = guard_of(
        plain,
        *operation_endpoints(settings),
        tokens=tokens_of(monkeypatch),
        backend=lambda: Running(is_alive=True, is_ready=True),
    )
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in (*PROBES, "/metrics"):
            is_open = are_metrics_open if path == "/metrics" else are_probes_open
            assert (await client.get(path)).status_code == (200 if is_open else 401)
            headers = {"authorization": f"Bearer {TOKEN}"}
            assert (await client.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize("is_alive", [True, False])
@pytest.mark.parametrize("is_ready", [True, False])
async def test_probes_are_answered_before_all_layers(is_alive: bool, is_ready: bool) -> None:
    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("the application was called")

    guard = guard_of(
        broken,
        *operation_endpoints(Settings()),
        backend=lambda: Running(is_alive=is_alive, is_ready=is_ready),
    )
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in PROBES:
            answer = await client.get(path)
            is_good = is_ready if path == "/readyz" else is_alive
            assert answer.status_code == (200 if is_good else 503)
            if not is_good:
                assert answer.json()["error"]["code"] == "unavailable"
                assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("are_probes_open", [False, True])
@pytest.mark.parametrize(
    ("backend", "status"),
    [
        (Running(is_alive=True, is_ready=False, is_starting=True), 204),
        (Running(is_alive=True, is_ready=True), 200),
        (Running(is_alive=True, is_ready=False), 503),
        (Running(is_alive=False, is_ready=False), 503),
    ],
    ids=["starting", "ready", "leaving", "dead"],
)
async def test_a_ping_knows_three_states_and_never_needs_a_token(
    monkeypatch: pytest.MonkeyPatch, backend: Running, status: int, are_probes_open: bool
) -> None:
    rows = operation_endpoints(Settings(open_probes=are_probes_open))
    tokens = tokens_of(monkeypatch)
    transport = httpx.ASGITransport(guard_of(plain, *rows, tokens=tokens, backend=lambda: backend))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for headers in ({}, {"authorization": "Bearer another-token-of-some-length"}):
            answer = await client.get(PING, headers=headers)
            assert answer.status_code == status
            assert bool(answer.content) == (status != 204)
        assert (await client.head(PING)).status_code == status


async def test_while_there_is_no_engine_what_needs_one_is_refused_unread() -> None:
    obstacles: list[LpwSdxlError | None] = [StartingError("soon")]
    counted: list[str] = []
    open_ = replace(reading("/x"), needs_engine=False)
    guard = guard_of(
        plain, GENERATE, open_, count_error=counted.append, obstacle=lambda: obstacles[0]
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=guard), base_url="http://test"
    ) as client:
        headers = {"content-type": "application/json"}
        for content in (b"{}", b"bad", b"{" * 1000):
            refused = await client.post("/generate", content=content, headers=headers)
            assert refused.status_code == 503
            assert error_of(refused) == {"code": "starting", "message": "soon", "field": None}
            assert refused.headers["retry-after"] == "3"
        assert counted == ["starting"] * 3
        assert (await client.get("/generate")).status_code == 405
        assert (await client.get("/x")).status_code == 200
        obstacles[0] = None
        assert (await client.post("/generate", content=b"{}", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {TOKEN}", "content-length": "101"}, 413),
        ({"authorization": f"Bearer {TOKEN}", "content-type": "text/plain"}, 415),
        ({"authorization": f"Bearer {TOKEN}", "origin": "https://evil.example.org"}, 403),
        ({"authorization": f"Bearer {TOKEN}", "x": "y" * 17_000}, 431),
    ],
)
async def test_what_is_refused_by_its_headers_is_not_read(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], status: int
) -> None:
    guard = guard_of(application, GENERATE, tokens=tokens_of(monkeypatch))
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    raw = {"content-type": "application/json", "content-length": "10"} | headers
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/generate",
        "headers": [(name.encode(), value.encode()) for name, value in raw.items()],
    }
    await guard(scope, receive, send)
    assert sent[0]["status"] == status


async def test_a_strangers_address_cannot_forge_a_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is copied from x-forwarded-for if a proxy on this machine passes that on."""
    guard = guard_of(plain, tokens=tokens_of(monkeypatch))

    async def send(message: Any) -> None:
        del message

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await guard(scope | {"client": ("\x1b[2J\x85forged" + "x" * 9000, 0)}, None, send)  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 200


@pytest.mark.parametrize(("length", "is_closed"), [("10", False), ("70000", True), (None, True)])
async def test_an_unread_body_costs_the_connection_if_it_is_not_small(
    monkeypatch: pytest.MonkeyPatch, length: str | None, is_closed: bool
) -> None:
    guard = guard_of(plain, tokens=tokens_of(monkeypatch))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    header = ("transfer-encoding", "chunked") if length is None else ("content-length", length)
    pair = (header[0].encode(), header[1].encode())
    scope = {"type": "http", "method": "POST", "path": "/generate", "headers": [pair]}
    await guard(scope, None, send)  # type: ignore[arg-type]
    assert ((b"connection", b"close") in sent[0]["headers"]) == is_closed


async def test_clients_that_read_slowly_keep_no_turn() -> None:
    row = replace(reading("/few"), at_once=1)
    guard = guard_of(plain, row)
    scope = {"type": "http", "method": "GET", "path": "/few", "headers": []}
    reads, has_begun = asyncio.Event(), asyncio.Event()
    sent: list[Any] = []

    async def send_slowly(_message: Any) -> None:
        has_begun.set()
        await reads.wait()

    async def send(message: Any) -> None:
        sent.append(message)

    slow = asyncio.ensure_future(guard(dict(scope), None, send_slowly))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await has_begun.wait()
        await guard(dict(scope), None, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 200
    reads.set()
    await slow


async def test_a_turn_lasts_until_the_answer_begins() -> None:
    working, most = 0, 0

    async def work(scope: Any, receive: Any, send: Any) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0.01)
        working -= 1
        await plain(scope, receive, send)

    guard = guard_of(work, replace(reading("/few"), at_once=2))
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = await asyncio.gather(*(client.get("/few") for _ in range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert most == 2


async def test_a_websocket_is_closed_before_the_application() -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the application was asked")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await guard_of(never)({"type": "websocket", "path": "/x"}, None, send)  # type: ignore[arg-type]
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.parametrize(("size", "status"), [(0, 200), (2, 200), (2**16, 200), (2**16 + 1, 413)])
async def test_a_small_body_of_a_get_may_be_ignored(size: int, status: int) -> None:
    rows = (reading("/missing"), replace(reading("/odd"), ignores_body=True))

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(app=guard_of(answer, *rows))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        ignoring = await client.request("GET", "/odd", content=b"x" * size)
        strict = await client.request("GET", "/missing", content=b"x" * size)
    assert (ignoring.status_code, strict.status_code) == (status, 413 if size else 200)


async def test_an_answer_that_cannot_be_sent_any_more_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client that sends what is no HTTP and closes its side leaves the server nothing to say."""

    async def refusing(message: Any) -> None:
        raise LocalProtocolError("can't handle event type Response")

    counted: list[str] = []
    guard = RequestGuard(
        application, EndpointTable([GENERATE, *OTHERS]), count_error=counted.append
    )
    scope = {
        "type": "http", "method": "POST", "path": "/generate", "query_string": b"",
        "headers": [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        "client": ("127.0.0.1", 1),
    }  # fmt: skip
    with caplog.at_level(logging.INFO):
        await guard(scope, None, refusing)  # type: ignore[arg-type]
    assert "internal" not in counted
    assert "client_left" in caplog.text
    assert "Traceback" not in caplog.text
