"""The table of endpoints, and a most demanding endpoint, through guard and handlers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import jsonschema
import pytest
from bentoml._internal.server.http.traffic import TimeoutMiddleware
from openapi_spec_validator import validate
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from lpw_sdxl.api.access_tokens import AccessTokens
from lpw_sdxl.api.dialect import ErrorDialect, ErrorNote
from lpw_sdxl.api.endpoint_table import EndpointTable, field_names
from lpw_sdxl.api.endpoints import (
    EVENTS,
    MULTIPART,
    TEXT,
    Answer,
    Backend,
    Body,
    Call,
    Endpoint,
    HeadCheck,
    Payload,
    find_call,
    put_call,
    take_request,
)
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.guard import Admission, RequestGuard
from lpw_sdxl.api.handlers import HandlerMiddleware
from lpw_sdxl.api.openapi import write_document
from lpw_sdxl.errors import InvalidRequestError, OverloadedError
from lpw_sdxl.schema import BatchRequest, GenerationRequest
from lpw_sdxl.settings import Settings


def reading(path: str) -> Endpoint:
    return Endpoint(("GET", "HEAD"), path, path, Answer(""))


def test_a_path_is_found_with_its_parameters() -> None:
    table = EndpointTable(
        map(reading, ("/jobs", "/jobs/{id}", "/jobs/{id}/preview", "/sd/{rest:path}"))
    )
    for path, expected, parameters in (
        ("/jobs", "/jobs", {}),
        ("/jobs/7", "/jobs/{id}", {"id": "7"}),
        ("/jobs/7/preview", "/jobs/{id}/preview", {"id": "7"}),
        ("/sd/a/b", "/sd/{rest:path}", {"rest": "a/b"}),
    ):
        found = table.find(path)
        assert found is not None
        assert (found.first.path, dict(found.parameters)) == (expected, parameters)
    for path in (
        "/",
        "/jobs/",
        "/jobs/7/",
        "/job",
        "/jobs/7/preview/x",
        "/jobs/7/preview\n",
        "/sd",
    ):
        assert table.find(path) is None


def test_a_fixed_path_comes_before_one_with_parameters() -> None:
    table = EndpointTable(map(reading, ("/jobs/{id}", "/jobs/mine")))
    found = table.find("/jobs/mine")
    assert found is not None
    assert found.first.path == "/jobs/mine"


def test_two_rows_share_a_path_but_no_method() -> None:
    put = Endpoint(("PUT",), "/a", "", Answer(""))
    found = EndpointTable([reading("/a"), put]).find("/a")
    assert found is not None
    assert found.allow == "GET, HEAD, PUT"
    with pytest.raises(ValueError, match="two endpoints claim"):
        EndpointTable([reading("/a"), reading("/a")])


def test_the_names_of_fields_are_those_of_inner_models_too() -> None:
    names = field_names([GenerationRequest, BatchRequest])
    assert {"prompt", "requests", "loras", "name", "text_encoder_weight"} <= names


def write_problem(answer: ErrorAnswer) -> dict[str, Any]:
    return {"detail": answer.message, "kind": answer.code}


def read_problem(body: Any) -> ErrorNote | None:
    return ErrorNote(body["kind"], None) if isinstance(body, dict) and "kind" in body else None


def problem_schema(codes: Sequence[str]) -> dict[str, Any]:
    properties = {"detail": {"type": "string"}, "kind": {"enum": [*codes]}}
    return {"type": "object", "required": ["detail", "kind"], "properties": properties}


PROBLEM = ErrorDialect("problem", write_problem, read_problem, problem_schema)


def parse_form(payload: Payload) -> list[bytes]:
    """Split a form into its parts, by its boundary; enough for a test."""
    boundary = payload.content_type.partition("boundary=")[2].encode()
    if not boundary:
        raise InvalidRequestError("the form has no boundary")
    parts = payload.content.split(b"--" + boundary)[1:-1]
    return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]


async def draw(call: Call, request: Request, backend: Backend) -> Response:
    parts = take_request(request.scope, list)
    if b"busy" in parts:
        raise OverloadedError("too much", retry_after_s=3)
    if b"broken" in parts:
        raise ValueError("a defect")
    place = call.parameters["id"], request.query_params.get("seed"), backend.engine

    async def events() -> AsyncIterator[str]:
        for part in parts:
            yield f"data: {json.dumps([*place, part.decode()])}\n\n"

    return StreamingResponse(events(), media_type=EVENTS)


async def look(call: Call, request: Request, backend: Backend) -> Response:
    return PlainTextResponse(f"{request.method} {call.parameters['id']} {backend.engine}")


HARDEST = (
    Endpoint(
        ("POST",),
        "/albums/{id}",
        "Draw what a form holds.",
        Answer("A picture an event.", (EVENTS,)),
        body=Body(parse_form, 1000, media_types=(MULTIPART,), head_check=HeadCheck.TOLERANT),
        handler=draw,
        dialect=PROBLEM,
        statuses=frozenset({429}),
        needs_token=False,
    ),
    Endpoint(
        ("GET", "HEAD"), "/albums/{id}", "Look.", Answer("A line.", (TEXT,)), handler=look,
        dialect=PROBLEM, needs_token=False,
    ),
)  # fmt: skip


class Service:
    engine = "the engine"
    previews = None

    def encode_file(self, image: Any) -> bytes:
        raise NotImplementedError


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Build the rows behind guard and handlers, without tokens."""
    seen: list[str] = []

    async def bentoml(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(f"BentoML was asked for {scope['path']}")

    routes = HandlerMiddleware(bentoml, Service)

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await routes(scope, receive, send)

    tokens = AccessTokens.from_settings(Settings(tokens="a-token-of-some-length"))
    guard = RequestGuard(noting, EndpointTable(HARDEST), Admission(tokens))
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        client.seen = seen  # type: ignore[attr-defined]
        yield client


async def test_a_form_becomes_events_on_a_path_with_a_parameter(client: httpx.AsyncClient) -> None:
    files = {"a": b"one", "b": b"two"}
    response = await client.post("/albums/x7?seed=5", files=files)
    assert (response.status_code, response.headers["content-type"]) == (
        200,
        f"{EVENTS}; charset=utf-8",
    )
    events = [json.loads(line[6:]) for line in response.text.split("\n\n") if line]
    assert events == [["x7", "5", "the engine", "one"], ["x7", "5", "the engine", "two"]]


async def test_another_method_of_the_path_has_a_handler_of_its_own(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.get("/albums/x7")).text == "GET x7 the engine"
    assert (await client.head("/albums/x7")).status_code == 200


@pytest.mark.parametrize(
    ("method", "files", "status", "code"),
    [
        ("POST", {"a": b"busy"}, 429, "overloaded"),
        ("POST", {"a": b"broken"}, 500, "internal"),
        ("POST", None, 400, "invalid_request"),
        ("POST", {"a": b"x" * 1001}, 413, "body_too_large"),
        ("DELETE", None, 405, "method_not_allowed"),
    ],
)
async def test_every_error_of_a_row_has_its_dialect(
    client: httpx.AsyncClient, method: str, files: Any, status: int, code: str
) -> None:
    response = await client.request(method, "/albums/x7", files=files)
    assert (response.status_code, response.json()["kind"]) == (status, code)
    if status == 405:
        assert response.headers["allow"] == "POST, GET, HEAD"
    if status == 429:
        assert response.headers["retry-after"] == "3"


async def test_a_path_that_is_nowhere_still_asks_for_a_token(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nowhere")).status_code == 401


async def test_a_request_that_came_past_the_guard_goes_on_to_bentoml() -> None:
    """A service's proxy of itself calls the application below the guard."""
    asked: list[str] = []

    async def bentoml(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])

    await HandlerMiddleware(bentoml, Service)({"type": "http", "path": "/readyz"}, None, None)  # type: ignore[arg-type]
    assert asked == ["/readyz"]


async def test_a_handler_that_fails_is_answered_before_bentomls_time_limit() -> None:
    async def fail(call: Call, request: Request, backend: Backend) -> Response:
        raise ValueError("a defect")

    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("BentoML was asked")

    row = Endpoint(("GET",), "/a", "", Answer(""), handler=fail, dialect=PROBLEM)
    limited = TimeoutMiddleware(HandlerMiddleware(never, Service), timeout=60)
    guard = RequestGuard(limited, EndpointTable([row]), Admission())
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        async with asyncio.timeout(5):
            response = await client.get("/a")
    assert (response.status_code, response.json()["kind"]) == (500, "internal")


async def test_only_the_endpoint_that_takes_a_parsed_request_holds_it() -> None:
    scope = put_call({"path": "/albums/1"}, Call(HARDEST[0], {"id": "1"}), ["a part"])
    assert find_call(scope) is not None
    assert take_request(scope, list) == ["a part"]
    with pytest.raises(AssertionError, match="was not called through the guard"):
        take_request(scope, list)


async def test_a_dialect_holds_for_paths_that_are_nowhere_and_for_tokens() -> None:
    closed = Endpoint(("GET",), "/sd/a", "", Answer(""), handler=look, dialect=PROBLEM)
    tokens = AccessTokens.from_settings(Settings(tokens="a-token-of-some-length"))
    for admission, path, status in (
        (Admission(), "/sd/b", 404),
        (Admission(tokens), "/sd/b", 401),
        (Admission(tokens), "/sd/a", 401),
    ):
        table = EndpointTable([closed], {"/sd/": PROBLEM})
        guard = RequestGuard(HandlerMiddleware(None, Service), table, admission)  # type: ignore[arg-type]
        transport = httpx.ASGITransport(app=guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.get(path)
            assert (response.status_code, "kind" in response.json()) == (status, True)
            assert (await client.get("/elsewhere")).json().keys() == {"error"}


def test_two_rows_of_one_request_bound_its_schema_once() -> None:
    def bound(schema: dict[str, Any]) -> None:
        schema["bounds"] = schema.get("bounds", 0) + 1

    body = Body(lambda payload: payload, 10, GenerationRequest, add_limits=bound)
    rows = [Endpoint(("POST",), path, "", Answer(""), body=body) for path in ("/a", "/v1/a")]
    document = json.loads(write_document(rows, has_tokens=False))
    assert document["components"]["schemas"]["GenerationRequest"]["bounds"] == 1


async def test_the_metrics_see_the_path_without_its_parameters(client: httpx.AsyncClient) -> None:
    for number in range(3):
        await client.get(f"/albums/{number}")
    assert client.seen == ["/albums/{id}"] * 3  # type: ignore[attr-defined]


def test_the_document_tells_all_of_it() -> None:
    document = json.loads(write_document(HARDEST, has_tokens=True))
    validate(document)
    operations = document["paths"]["/albums/{id}"]
    assert set(operations) == {"get", "post"}
    post = operations["post"]
    assert post["parameters"][0]["name"] == "id"
    assert [*post["requestBody"]["content"]] == [MULTIPART]
    assert [*post["responses"]["200"]["content"]] == [EVENTS]
    assert "security" not in post
    assert post["operationId"] != operations["get"]["operationId"]
    name = post["responses"]["429"]["$ref"].rpartition("/")[2]
    schema = document["components"]["responses"][name]["content"]["application/json"]["schema"]
    jsonschema.validate({"detail": "m", "kind": "overloaded"}, schema)
