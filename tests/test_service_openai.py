"""OpenAI's API over real HTTP: what its clients get, and that it is what ours draws."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from conftest import ROOT, Store
from recordings import BOUNDARY, Recording, read, recordings
from serving import Server, serving

pytestmark = pytest.mark.processes

PATH, EDITS = "/v1/images/generations", "/v1/images/edits"
SMALL = {"prompt": "a red circle", "size": "64x64", "steps": 2, "seed": 7}
NATIVE = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 2, "seed": 7}
TOKEN = "a-token-of-a-client-of-openai"
# What is no test of the door: a LoRA that this server has not.
UNSERVED_LORA = ("openai-python-edit-extra", "openai-python-generate-extra")
UNSERVED_LORA += ("vllm-omni-style-edit", "vllm-omni-style-generate")


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log_file = tmp_path_factory.mktemp("open") / "log"
    environment = store.environment | {"LPW_SDXL_MAX_STEPS": "999"}
    target = "service:LpwSdxl"
    with serving(target, folder=ROOT, environment=environment, log_file=log_file) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def draw(client: httpx.Client, path: str = PATH, **fields: Any) -> dict[str, Any]:
    response = client.post(path, json=SMALL | fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def files_of(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(one["b64_json"]) for one in answer["data"]]


def pixels_of(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def png(mode: str, colour: Any, hole: tuple[int, ...] | None = None, inside: Any = 0) -> bytes:
    picture = Image.new(mode, (64, 64), colour)
    if hole:
        ImageDraw.Draw(picture).rectangle(hole, fill=inside)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def smaller(recording: Recording) -> Recording:
    """The same request of 64 pixels and two steps: what is drawn is not the question."""
    body = recording.body
    if isinstance(body, dict):
        body = {**body, "size": "64x64", "steps": 2} | (
            {"width": 64, "height": 64} if "width" in body else {}
        )
        body.pop("num_inference_steps", None)
    elif isinstance(body, list):
        kept = [part for part in body if part["name"] not in ("size", "num_inference_steps")]
        body = [*kept, {"name": "steps", "text": "2"}]
    return Recording(
        recording.name, recording.method, recording.target, recording.content_type, body
    )


@pytest.mark.parametrize("name", [one.name for one in recordings()])
def test_a_recorded_request_gets_what_its_client_needs(client: httpx.Client, name: str) -> None:
    recording = smaller(read(name))
    headers = {"content-type": recording.content_type} if recording.content_type else {}
    response = client.request(
        recording.method, recording.target, content=recording.content, headers=headers
    )
    if name == "openai-python-variation":
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "not_found"
    elif name in UNSERVED_LORA:
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "loras.0.name"
    elif "models" in name:
        models = response.json()
        assert [one["object"] for one in models.get("data", [models])] == ["model"]
    elif "stream" in name:
        events = [json.loads(line[6:]) for line in response.text.splitlines() if "data: " in line]
        assert events[-1]["type"].endswith(".completed")
        assert_picture(base64.b64decode(events[-1]["b64_json"]))
    elif recording.method == "OPTIONS":
        assert response.status_code == 200
    else:
        assert response.status_code == 200, response.text
        body = recording.body
        fields = body if isinstance(body, dict) else {one["name"]: one.get("text") for one in body}
        for image in response.json()["data"]:
            assert len(image.keys() & {"b64_json", "url"}) == 1
            if fields.get("response_format") in ("url", "b64_json"):
                assert fields["response_format"] in image
            if "url" in image:
                assert_picture(client.get(image["url"]).content)
            else:
                assert_picture(base64.b64decode(image["b64_json"]))


def assert_picture(content: bytes) -> None:
    assert Image.open(io.BytesIO(content)).size == (64, 64)


def test_the_door_draws_what_generate_draws(client: httpx.Client) -> None:
    native = client.post("/generate", json=NATIVE)
    response = client.post(PATH, json=SMALL)
    answer = response.json()
    assert files_of(answer) == [native.content]
    assert response.headers["x-seed"] == native.headers["x-seed"] == "7"
    assert answer["data"][0]["seed"] == 7
    assert answer["model"].startswith("sdxl:")
    assert (answer["size"], answer["output_format"]) == ("64x64", "png")
    assert "warnings" not in answer
    two = draw(client, n=2, path="/images/generations")
    second = client.post("/generate", json=NATIVE | {"seed": 8})
    for made, alone in zip(files_of(two), (native, second), strict=True):
        difference = pixels_of(made).astype(int) - pixels_of(alone.content)
        assert np.abs(difference).max() <= 1, "as in any company, on a CPU"


def test_an_edit_draws_what_generate_draws(client: httpx.Client) -> None:
    image = png("RGB", "green")
    encoded = base64.b64encode(image).decode()
    native = client.post("/generate", json=NATIVE | {"image": encoded, "strength": 1.0})
    form = client.post(
        EDITS, data=SMALL | {"strength": "1"}, files={"image": ("a.bin", image, "text/plain")}
    )
    assert form.status_code == 200, form.text
    assert files_of(form.json()) == [native.content]
    as_json = draw(client, EDITS, strength=1, image=f"data:image/png;base64,{encoded}")
    assert files_of(as_json) == [native.content]


@pytest.mark.parametrize(
    "mask",
    [
        png("RGBA", (0, 0, 0, 255), (16, 16, 47, 47), (0, 0, 0, 0)),
        png("L", 0, (16, 16, 47, 47), 255),
    ],
    ids=["transparent", "white"],
)
def test_a_mask_is_repainted_where_openais_is(client: httpx.Client, mask: bytes) -> None:
    image = png("RGB", "green")
    response = client.post(EDITS, data=SMALL, files={"image[]": image, "mask": mask})
    assert response.status_code == 200, response.text
    drawn = pixels_of(files_of(response.json())[0])
    changed = (drawn != pixels_of(image)).any(axis=2)
    outside = np.ones((64, 64), bool)
    outside[16:48, 16:48] = False
    assert not changed[outside].any()
    assert changed[~outside].mean() > 0.9


def test_files_are_of_the_kind_and_quality_that_was_asked_for(client: httpx.Client) -> None:
    sizes = []
    for compression in (10, 100):
        answer = draw(client, output_format="jpg", output_compression=compression, size="256x256")
        (content,) = files_of(answer)
        assert Image.open(io.BytesIO(content)).format == "JPEG"
        assert answer["output_format"] == "jpeg"
        sizes.append(len(content))
    assert sizes[0] * 2 < sizes[1]


def test_a_url_leads_to_the_file(client: httpx.Client, server: Server) -> None:
    answer = draw(client, response_format="url")
    url = answer["data"][0]["url"]
    assert url.startswith(f"{server.url}/v1/images/files/")
    file = client.get(url)
    assert file.headers["content-type"] == "image/png"
    assert [file.content] == files_of(draw(client))
    assert client.head(url).status_code == 200
    other = draw_under_host(client, "images.example.org:8080")
    assert other.startswith("http://images.example.org:8080/v1/images/files/")
    missing = client.get("/v1/images/files/none.png")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")


def draw_under_host(client: httpx.Client, host: str) -> str:
    body = SMALL | {"response_format": "url"}
    response = client.post(PATH, json=body, headers={"host": host})
    url: str = response.json()["data"][0]["url"]
    return url


def stream(client: httpx.Client, path: str = PATH, **fields: Any) -> list[dict[str, Any]]:
    response = client.post(path, json=SMALL | {"stream": True} | fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in response.text.split("\n\n"):
        if block.startswith("event: "):
            name, data = block.split("\n")
            events.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {events[-1]['type']}"
    return events


def test_a_stream_has_previews_and_the_image_and_nothing_else(client: httpx.Client) -> None:
    events = stream(client, partial_images=2, steps=40)
    partial = [one for one in events if one["type"] == "image_generation.partial_image"]
    assert [one["partial_image_index"] for one in partial] == [*range(len(partial))]
    assert 1 <= len(partial) <= 2
    for one in partial:
        preview = Image.open(io.BytesIO(base64.b64decode(one["b64_json"])))
        assert preview.format == "JPEG"
    assert [one["type"] for one in events[len(partial) :]] == ["image_generation.completed"]
    made = draw(client, steps=40)
    assert [base64.b64decode(events[-1]["b64_json"])] == files_of(made)
    assert stream(client, n=2)[0].keys() >= {"usage", "seed", "image_index"}
    edited = stream(client, EDITS, image=base64.b64encode(png("RGB", "red")).decode())
    assert [one["type"] for one in edited] == ["image_edit.completed"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_stream_that_is_refused_has_a_status(client: httpx.Client, count: int) -> None:
    body = SMALL | {"stream": True, "n": count, "loras": "absent"}
    response = client.post(PATH, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "loras.0.name"


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"prompt": "a", "n": 0}, 400, ("invalid_request_error", "n", "invalid_request")),
        ({"prompt": "<lora:x:1>"}, 400, ("invalid_request_error", "prompt", "invalid_request")),
        (
            {"prompt": "a", "size": "9999x64"},
            400,
            ("invalid_request_error", "size", "invalid_request"),
        ),
        (
            {"prompt": "a", "deadline_s": 0.001, "size": "128x128"},
            408,
            ("invalid_request_error", "deadline_s", "deadline_exceeded"),
        ),
    ],
)
def test_errors_have_openais_shape(
    client: httpx.Client, body: dict[str, Any], status: int, error: tuple[str | None, ...]
) -> None:
    response = client.post(PATH, json=body)
    assert response.status_code == status
    found = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert (found["type"], found["param"], found["code"]) == error
    assert response.headers["x-should-retry"] == "false"


def test_other_errors_are_in_openais_shape_too(client: httpx.Client) -> None:
    for response, status in (
        (client.get(PATH), 405),
        (client.get("/v1/nothing"), 404),
        (client.get("/v1/models/gpt-image-1"), 404),
        (client.post(PATH, content=b"x" * 10**6), 413),
        (client.post(EDITS, content=b"--x", headers={"content-type": "multipart/form-data"}), 400),
        (client.post(PATH, json=SMALL, headers={"origin": "https://example.org"}), 403),
        (client.post(PATH, json=SMALL, headers={"origin": "null"}), 403),
    ):
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_what_is_ignored_is_logged_as_a_number(client: httpx.Client, server: Server) -> None:
    answer = draw(client, a_secret_field="a secret value")
    assert answer["warnings"] == ["unknown fields were ignored: 'a_secret_field'"]
    assert "1 unknown fields were ignored" in server.log
    assert "secret" not in server.log


def test_spoilt_forms_are_refused_and_nothing_else(client: httpx.Client, server: Server) -> None:
    body = smaller(read("openai-python-edit-mask")).content
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    for end in range(0, len(body), 37):
        response = client.post(EDITS, content=body[:end], headers=headers)
        assert response.status_code in (200, 400), response.text
    assert "Traceback" not in server.log


def test_a_client_needs_a_token_and_a_door_can_be_shut(
    store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shut")
    environment = store.environment | {
        "LPW_SDXL_TOKENS": TOKEN,
        "LPW_SDXL_PUBLIC_URL": "https://images.example.org/",
    }
    with running(environment, folder / "guarded") as server:
        refused = httpx.post(f"{server.url}{PATH}", json=SMALL)
        assert (refused.status_code, refused.json()["error"]["type"]) == (
            401,
            "authentication_error",
        )
        assert httpx.options(f"{server.url}{PATH}").status_code == 200
        headers = {"authorization": f"Bearer {TOKEN}"}
        body = SMALL | {"response_format": "url"}
        answer = httpx.post(f"{server.url}{PATH}", json=body, headers=headers, timeout=60).json()
        url = answer["data"][0]["url"]
        assert url.startswith("https://images.example.org/v1/images/files/")
        assert httpx.get(server.url + urlsplit(url).path).status_code == 200
    with running(store.environment | {"LPW_SDXL_DOORS": "none"}, folder / "none") as server:
        shut = httpx.post(f"{server.url}{PATH}", json=SMALL)
        assert (shut.status_code, shut.json()["error"]["code"]) == (404, "not_found")
        assert "field" in shut.json()["error"]


def running(environment: dict[str, str], log_file: Path) -> Any:
    return serving("service:LpwSdxl", folder=ROOT, environment=environment, log_file=log_file)
