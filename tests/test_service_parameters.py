"""/read_parameters as its clients see it: a picture's text to a request that draws it again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import bentoml
import httpx
import pytest

from serving import Server
from tests.parameters.pictures import TEXT, jpeg, plain, png

pytestmark = pytest.mark.processes

A1111 = (
    "a (cat:1.2)\nNegative prompt: bad\nSteps: 3, Sampler: Euler a, Schedule type: Karras,"
    " CFG scale: 6, Seed: 5, Size: 64x72, Model: other, Hires upscale: 1.5, Version: v1.10.1"
)


@pytest.fixture
def client(plain_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=plain_server.url, timeout=60) as client:
        yield client


def read(client: httpx.Client, **fields: Any) -> Any:
    answer = client.post("/read_parameters", json=fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_a_text_is_read_as_a_request_that_draws(client: httpx.Client) -> None:
    answer = read(client, parameters=A1111)
    assert answer["request"] == {
        "prompt": "a (cat:1.2)",
        "negative_prompt": "bad",
        "width": 64,
        "height": 72,
        "num_inference_steps": 3,
        "guidance_scale": 6.0,
        "seed": 5,
        "sampler_implementation": "k_diffusion",
        "scheduler": "Euler a",
        "schedule_type": "Karras",
        "noise_source": "nv",
        "prompt_style": "a1111-original",
        "hires": {"scale": 1.5},
    }
    assert [one["name"] for one in answer["not_honoured"]] == ["Model"]
    assert all(set(one) == {"name", "value", "reason"} for one in answer["not_honoured"])
    drawn = client.post("/generate", json=answer["request"])
    assert drawn.status_code == 200, drawn.text


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(
    "fields",
    [
        {"scheduler": "DPM++ 2M Karras"},
        {
            "sampler_implementation": "k_diffusion",
            "scheduler": "DPM++ 2M SDE",
            "noise_source": "nv",
            "timestep_rounding": "nearest",
        },
    ],
    ids=["diffusers", "k_diffusion"],
)
def test_our_own_picture_is_drawn_again_from_its_file(
    client: httpx.Client, fields: dict[str, Any], image_format: str
) -> None:
    request = {"prompt": "a fox, (snow:1.3)", "num_inference_steps": 2, **fields}
    first = client.post("/generate", json=request | {"image_format": image_format})
    answer = read(client, image=in_base64(first.content))
    assert answer["not_honoured"] == []
    again = client.post("/generate", json=answer["request"] | {"image_format": image_format})
    assert again.content == first.content


def test_a_data_url_of_a_picture_is_read(client: httpx.Client) -> None:
    answer = read(client, image="data:image/png;base64," + in_base64(png(plain(TEXT))))
    assert answer["request"]["prompt"] == "a cat"
    assert [one["name"] for one in answer["not_honoured"]] == ["missing"]


def test_what_this_server_would_refuse_is_named(client: httpx.Client) -> None:
    text = "(" * 70 + "a\n" + A1111.partition("\n")[2].replace("Steps: 3", "Steps: 900")
    answer = read(client, parameters=text)
    notes = {one["name"]: one["reason"] for one in answer["not_honoured"]}
    assert notes["Steps"] == "At most 150 steps are accepted here; so many are taken."
    assert answer["request"]["num_inference_steps"] == 150
    assert notes["prompt"].startswith("The request is refused as it is: ")


def test_a_lora_that_is_not_here_is_left_out(client: httpx.Client) -> None:
    answer = read(client, parameters="<lora:absent:1> a\nSteps: 2, Seed: 1")
    assert answer["request"]["prompt"] == " a"
    assert answer["not_honoured"][0]["value"] == "absent"


BAD = {
    "neither": ({}, "parameters", "none is given of parameters and image"),
    "both": ({"parameters": "a", "image": "aaaa"}, "parameters", "both are given"),
    "empty": ({"parameters": ""}, "parameters", "parameters is empty"),
    "a number": ({"parameters": 5}, "parameters", "a string would be right"),
    "an unknown field": ({"parameter": "a"}, "parameter", "did you mean parameters?"),
    "no base64": ({"image": "%"}, "image", "is no base64"),
    "no picture": ({"image": in_base64(b"GIF89a")}, "image", "is a GIF"),
    "no text": ({"image": in_base64(jpeg(None))}, "image", "holds no text of how it was made"),
    "ComfyUI": ({"image": in_base64(png(plain("{}", "prompt")))}, "image", "made by ComfyUI"),
    "JSON": ({"parameters": '{"3": {"class_type": 1}}'}, "parameters", "JSON of ComfyUI"),
    "a long text": ({"parameters": "a" * 140_000}, "parameters", "at most 131072 are accepted"),
    "a long prompt": ({"parameters": "a" * 40_000}, "parameters", "prompt has 40000 characters"),
}


@pytest.mark.parametrize(("body", "field", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_body_is_refused_by_its_field(
    client: httpx.Client, body: dict[str, Any], field: str, message: str
) -> None:
    answer = client.post("/read_parameters", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["field"] == field
    assert message in answer.json()["error"]["message"]


def test_bentomls_client_reads_parameters(plain_server: Server) -> None:
    with bentoml.SyncHTTPClient(plain_server.url, timeout=60) as client:
        answer = client.read_parameters(parameters=A1111)
    assert answer["request"]["scheduler"] == "Euler a"


def test_the_document_has_both_fields_and_the_answer(client: httpx.Client) -> None:
    schemas = client.get("/docs.json").json()["components"]["schemas"]
    properties = schemas["ParametersRequest"]["properties"]
    assert properties["parameters"]["anyOf"][0]["maxLength"] == 131_072
    assert set(schemas["ParametersAnswer"]["required"]) == {"request", "not_honoured"}
    assert set(schemas["NotHonoured"]["properties"]) == {"name", "value", "reason"}
    assert json.dumps(schemas)
