"""A1111's lists, options and commands over real HTTP: what clients read."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from a1111_server import API, LONG
from serving import Server

pytestmark = pytest.mark.processes

REQUESTS = json.loads(
    (Path(__file__).parent / "doors" / "a1111" / "list_requests.json").read_text()
)
ABSENT = {  # clients find out by a 404 that something is not here
    *("aiya-startup-version", "sd-backend-client-detect", "sd-backend-client-login_check"),
    *("sd-backend-client-get_capabilities-2", "sd-backend-client-get_capabilities-4"),
    *("sillytavern-comfy-models", "sillytavern-comfy-ping", "webuiapi-interrogate"),
}
OTHER_MODEL = {  # `demo`, which is not the model of these tests
    *("dify-set-model", "sd-backend-client-set_config", "sdai-android-set-options"),
    *("sillytavern-set-model", "stable-diffusion-api-setOptions", "webuiapi-set_options"),
    "webuiapi-util_set_model-2",
}
FROM_PAGES = {"kobold-lite-models", "kobold-lite-options"}  # of an origin that is not opened
PAGE_OF_BENTOML = {"aiya-startup-root", "sillytavern-drawthings-ping"} | {
    *("gradio-client-connect-2", "sillytavern-drawthings-get-model")
}


@pytest.mark.parametrize("request_", REQUESTS, ids=[one["name"] for one in REQUESTS])
def test_a_recorded_request_gets_what_its_client_reads(
    plain_server: Server, request_: dict[str, Any]
) -> None:
    name, body = request_["name"], request_["body"]
    response = httpx.request(
        request_["method"],
        plain_server.url + request_["target"],
        content=b"" if body is None else json.dumps(body).encode(),
        headers=request_["headers"],
        timeout=60,
    )
    if name in ABSENT:
        assert response.status_code == 404
        assert "error" in response.json()
    elif name in OTHER_MODEL:
        assert (response.status_code, response.json()["field"]) == (400, "sd_model_checkpoint")
    elif name in FROM_PAGES:
        assert response.status_code == 403
    else:
        assert response.status_code == 200, response.text
        if name not in PAGE_OF_BENTOML:
            response.json()


def get(client: httpx.Client, path: str) -> Any:
    response = client.get(path if path.startswith("/") else f"{API}/{path}")
    assert response.status_code == 200, response.text
    return response.json()


def test_lists_name_what_requests_take(a1111_client: httpx.Client) -> None:
    [model] = get(a1111_client, "sd-models")
    assert all(isinstance(model[key], str) and model[key] for key in model.keys() - {"config"})
    assert model["title"] == f"{model['model_name']}.safetensors [{model['sha256'][:10]}]"
    options = get(a1111_client, "options")
    assert options["sd_model_checkpoint"] == model["title"]
    assert None not in options.values()
    assert [one["name"] for one in get(a1111_client, "loras")] == ["demo-frame"]
    assert get(a1111_client, "loras")[0].keys() == {"name", "alias", "path", "metadata"}
    assert get(a1111_client, "embeddings")["loaded"]["glow"]["vectors"] == 2
    upscalers = get(a1111_client, "upscalers")
    assert [one["name"] for one in upscalers] == ["None", "Lanczos", "Nearest", "Tiny 2x"]
    assert upscalers[-1]["scale"] == 2.0
    modes = [one["name"] for one in get(a1111_client, "latent-upscale-modes")]
    assert modes[0] == "Latent"
    [part] = get(a1111_client, "/config")["components"]
    assert part["props"]["choices"] == [*modes, *(one["name"] for one in upscalers)]
    memory = get(a1111_client, "memory")
    assert memory["ram"]["used"] > 0
    assert memory["cuda"] == {"error": "unavailable"}


def test_every_listed_sampler_schedule_and_upscaler_draws(a1111_client: httpx.Client) -> None:
    small = LONG | {"steps": 2}
    cases: list[dict[str, Any]] = []
    for sampler in get(a1111_client, "samplers"):
        assert sampler.keys() == {"name", "aliases", "options"}
        assert all(isinstance(one, str) for one in sampler["options"].values())
        cases += [{"sampler_name": one} for one in (sampler["name"], *sampler["aliases"])]
    for one in get(a1111_client, "schedulers"):
        names = (one["name"], one["label"], *one["aliases"])
        cases += [{"sampler_name": "Euler", "scheduler": name} for name in names]
    hires = {"enable_hr": True, "hr_scale": 2, "hr_second_pass_steps": 1}
    for mode in get(a1111_client, "latent-upscale-modes") + get(a1111_client, "upscalers"):
        cases.append(hires | {"hr_upscaler": mode["name"]})

    def draw(case: dict[str, Any]) -> httpx.Response:
        return a1111_client.post(f"{API}/txt2img", json=small | case)

    with ThreadPoolExecutor(8) as threads:
        for case, response in zip(cases, threads.map(draw, cases), strict=True):
            assert response.status_code == 200, (case, response.text)


def test_options_may_be_posted_back_and_keep_the_model(a1111_client: httpx.Client) -> None:
    options = get(a1111_client, "options")
    title, sha256 = options["sd_model_checkpoint"], options["sd_checkpoint_hash"]
    name = title.partition(".")[0]
    for checkpoint in (title, name, f"{name}.safetensors", f"{name} [{sha256[:10]}]", sha256[:10]):
        body = options | {"sd_model_checkpoint": checkpoint, "CLIP_stop_at_last_layers": 2}
        response = a1111_client.post(f"{API}/options", json=body)
        assert (response.status_code, response.json()) == (200, None)
    for body in ({}, {"sd_model_checkpoint": None}, {"sd_model_checkpoint": ""}, {"other": [1]}):
        assert a1111_client.post(f"{API}/options", json=body).status_code == 200
    assert a1111_client.post(f"{API}/options", content=b"").status_code == 200
    for wrong in ("another", f"{name} [0123456789]", 5):
        response = a1111_client.post(f"{API}/options", json={"sd_model_checkpoint": wrong})
        assert response.status_code == 400
        assert response.json()["field"] == "sd_model_checkpoint"
    assert a1111_client.post(f"{API}/options", content=b"[]").status_code == 400
    assert get(a1111_client, "options") == options


@pytest.mark.parametrize("body", [b"", b"{}", b'""', b"null", b"what?", b'{"a": 1}'])
def test_commands_take_any_body(a1111_client: httpx.Client, body: bytes) -> None:
    answers = {
        "interrupt": {},
        "skip": None,
        "unload-checkpoint": {},
        "reload-checkpoint": {},
        "refresh-checkpoints": None,
        "refresh-vae": None,
        "refresh-loras": None,
        "refresh-embeddings": None,
    }
    for name, answer in answers.items():
        response = a1111_client.post(f"{API}/{name}", content=body)
        assert (response.status_code, response.json()) == (200, answer)
