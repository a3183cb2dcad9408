"""Bad requests to a real server: each gets its exact answer, which the OpenAPI document has."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import bentoml
import httpx
import jsonschema
import pytest

from addons import AddonMaker
from bad_requests import ALL_CASES, SETTINGS, Bad
from bad_requests.case import GOOD, Http
from bad_requests.client import Answer, send
from conftest import ROOT, Store, store_environment
from serving import Server, serving
from tests.forge.lora import LoraOptions
from tests.parameters.pictures import png

pytestmark = pytest.mark.processes

EVERY_CASE = [
    pytest.param(case, id=f"{title}: {case.name}")
    for title, cases in ALL_CASES.items()
    for case in cases
]


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("bentoml")
    shutil.copytree(store.home, home, dirs_exist_ok=True)
    environment = store_environment(home)
    files = tmp_path_factory.mktemp("files")
    maker = AddonMaker(store.model_directory, home, environment, files)
    maker.lora("detail", LoraOptions(seed=1))
    maker.lora("texture", LoraOptions(seed=2))
    maker.embedding("glow", 1, seed=2)
    maker.import_written()
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=environment | SETTINGS,
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    published: dict[str, Any] = client.get("/docs.json").json()
    return published


def test_the_corpus_is_broad() -> None:
    assert len(EVERY_CASE) >= 150
    assert len(ALL_CASES) >= 12
    for title, cases in ALL_CASES.items():
        assert len({case.name for case in cases}) == len(cases), title


@pytest.mark.parametrize("case", EVERY_CASE)
def test_a_bad_request_gets_its_exact_answer(
    case: Bad, client: httpx.Client, document: Mapping[str, Any]
) -> None:
    answer = send(case, client)
    assert answer.status == case.status
    if case.code == "no_http":
        assert answer.content.decode() == case.message
        return
    error = {"code": case.code, "message": case.message, "field": case.field}
    item = {"status": "error", **error}
    assert json.loads(answer.content) == ([item] if case.status == 200 else {"error": error})
    assert_documented(case, answer, document)


def assert_documented(case: Bad, answer: Answer, document: Mapping[str, Any]) -> None:
    """Check an answer against the document: its operation's, or the statement about any path."""
    responses = document["components"]["responses"]
    request = case.request
    if isinstance(request, Http):
        path = request.path.partition("?")[0]
        operation = document["paths"].get(path, {}).get(request.method.lower())
        responses = responses if operation is None else operation["responses"]
    assert_fits(responses[str(answer.status)], answer.headers, answer.content, document)


def assert_fits(
    response: Mapping[str, Any],
    headers: httpx.Headers,
    content: bytes,
    document: Mapping[str, Any],
) -> None:
    """Check an answer against one response of the document."""
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    media_type = headers["content-type"].partition(";")[0]
    schema = response["content"][media_type]["schema"]
    if media_type == "application/json":
        validate(json.loads(content), schema, document)
    for name, header in response.get("headers", {}).items():
        text = headers[name]
        is_number = header["schema"]["type"] == "integer"
        validate(int(text) if is_number else text, header["schema"], document)


def validate(value: object, schema: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    resolvable = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(resolvable).validate(value)


GOOD_REQUESTS: Mapping[str, tuple[str, str, Any]] = {
    "a PNG": ("POST", "/generate", {**GOOD, "seed": 2**64 - 1}),
    "a JPEG": ("POST", "/generate", {**GOOD, "image_format": "jpeg", "width": 64}),
    "a WebP": ("POST", "/generate", {**GOOD, "image_format": "webp"}),
    "a LoRA": ("POST", "/generate", {**GOOD, "loras": [{"name": "Detail"}]}),
    "a batch": ("POST", "/generate_batch", {"requests": [GOOD, 5]}),
    "a stream": ("POST", "/generate_stream", {**GOOD, "preview_every": 1}),
    "a stream of a batch": ("POST", "/generate_batch_stream", {"requests": [GOOD, 5]}),
    "a larger picture": (
        "POST",
        "/upscale",
        {"image": base64.b64encode(png()).decode(), "width": 96},
    ),
    "jobs": ("GET", "/jobs", None),
    "an inspection": (
        "POST",
        "/inspect_prompt",
        {"prompt": "a (b:1.2) BREAK glow <lora:detail:1>", "negative_prompt": "(("},
    ),
    "parameters": ("POST", "/read_parameters", {"parameters": "<lora:b:1> a\nSteps: 9, Seed: 1"}),
    "the server's state": ("POST", "/info", {}),
    **{
        path: ("GET", path, None)
        for path in ("/", "/livez", "/readyz", "/healthz", "/ping", "/metrics")
    },
    "BentoML's schema": ("GET", "/schema.json", None),
    "the document": ("GET", "/docs.json", None),
}


@pytest.mark.parametrize(
    ("method", "path", "body"), GOOD_REQUESTS.values(), ids=GOOD_REQUESTS.keys()
)
def test_a_good_answer_is_the_documents(
    client: httpx.Client, document: Mapping[str, Any], method: str, path: str, body: Any
) -> None:
    response = client.request(method, path, json=body)
    assert response.status_code == 200
    documented = document["paths"][path][method.lower()]["responses"]["200"]
    assert_fits(documented, response.headers, response.content, document)


def test_every_path_of_the_document_is_tried_above(document: Mapping[str, Any]) -> None:
    tried = {path for _, path, _ in GOOD_REQUESTS.values()} | {"/jobs/{request_id}"}
    of_doors = (["openai"], ["a1111"])  # tags; these doors have tests of their own
    tags = {path: next(iter(every.values()))["tags"] for path, every in document["paths"].items()}
    assert tried == {path for path in tags if tags[path] not in of_doors}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_job_is_the_documents(
    client: httpx.Client, document: Mapping[str, Any], method: str
) -> None:
    client.post("/generate", json={**GOOD, "request_id": method})
    for name, status in ((method, "200"), ("absent", "404")):
        response = client.request(method, f"/jobs/{name}")
        assert str(response.status_code) == status
        documented = document["paths"]["/jobs/{request_id}"][method.lower()]["responses"][status]
        assert_fits(documented, response.headers, response.content, document)


@pytest.mark.parametrize(
    "path",
    [
        "/generate",
        "/generate_stream",
        "/generate_batch",
        "/generate_batch_stream",
        "/inspect_prompt",
        "/read_parameters",
        "/info",
    ],
)
def test_the_documents_example_works(
    client: httpx.Client, document: Mapping[str, Any], path: str
) -> None:
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    validate(body["example"], body["schema"], document)
    assert client.post(path, json=body["example"]).status_code == 200


def test_the_document_tells_the_limits_in_force(document: Mapping[str, Any]) -> None:
    schema = document["components"]["schemas"]["GenerationRequest"]
    assert schema["required"] == ["prompt", "num_inference_steps"]
    assert schema["properties"]["num_inference_steps"]["maximum"] == 4
    assert schema["properties"]["width"]["anyOf"][0]["maximum"] == 136
    assert schema["properties"]["width"]["description"].endswith("128 by default.")


def test_bentomls_client_needs_no_document(server: Server) -> None:
    with bentoml.SyncHTTPClient(server.url, timeout=60) as client:
        assert client.generate(**GOOD).size == (128, 128)
        (answer,) = client.generate_batch(requests=[GOOD])
        assert base64.b64decode(answer["image"]).startswith(b"\x89PNG")


# Prompts that are no error but seldom intended: they are drawn, and /inspect_prompt warns.
SUSPICIOUS: Mapping[str, tuple[str, str]] = {
    "a tag without an end": ("<lora:detail:1", "character 0: a tag that begins with <lora:"),
    "a tag with a blank": ("<lora :detail:1>", "character 0: a tag is read as text"),
    "a tag of another kind": ("<style:detail:1>", "character 0: a tag is read as text"),
    "an unknown embedding": ("embedding:foo", "character 0: what follows embedding: is no"),
    "a weight that is no weight": ("(a:1e9)", "character 6: a number before a closing bracket"),
}
REFUSED_LATER: Mapping[str, tuple[str, str]] = {
    "an unknown LoRA": ("prompt", "<lora:absent:1>"),
    "a LoRA's weight": ("prompt", "<lora:detail:11>"),
    "too many LoRAs": ("prompt", "<lora:detail><lora:texture>"),
    "a negative LoRA": ("negative_prompt", "<lora:detail:1>"),
    "a weight that is no number": ("prompt", "<lora:detail:nan>"),
    "a weight with a comma": ("prompt", "b <lyco:detail:0,8>"),
    "a part of a tag": ("prompt", "<LORA:detail:1:dyn=4>"),
    "a hypernetwork": ("prompt", "<hypernet:a:1>"),
    "a negative hypernetwork": ("negative_prompt", "<hypernet:a:1>"),
}


@pytest.mark.parametrize(("prompt", "warning"), SUSPICIOUS.values(), ids=SUSPICIOUS.keys())
def test_what_is_seldom_meant_is_drawn_and_an_inspection_warns(
    client: httpx.Client, prompt: str, warning: str
) -> None:
    assert client.post("/generate", json={**GOOD, "prompt": prompt}).status_code == 200
    explained = client.post("/inspect_prompt", json={"prompt": prompt}).json()
    assert [one.startswith(warning) for one in explained["prompt"]["warnings"]] == [True]


@pytest.mark.parametrize(("field", "text"), REFUSED_LATER.values(), ids=REFUSED_LATER.keys())
def test_an_inspection_tells_why_there_would_be_no_image(
    client: httpx.Client, field: str, text: str
) -> None:
    refused = client.post("/generate", json={**GOOD, field: text})
    assert refused.status_code == 400
    explained = client.post("/inspect_prompt", json={"prompt": "a", field: text}).json()
    reason = refused.json()["error"]["message"]
    assert explained[field]["warnings"] == [f"no image is made of it: {reason}"]


def test_the_log_has_no_traceback_and_the_server_goes_on(
    client: httpx.Client, server: Server
) -> None:
    assert client.post("/generate", json=dict(GOOD)).status_code == 200
    assert "Traceback" not in server.log
