"""Other programs' own clients draw, and raise what is refused: `make test-doors`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import ROOT, Store
from pages import DOCS
from serving import Server, serving

pytestmark = [pytest.mark.processes, pytest.mark.clients]

DRIVERS = Path(__file__).parent / "clients"
CLIENTS = ROOT / ".venv-clients"
PYTHON, NODE = CLIENTS / "bin" / "python", CLIENTS / "bin" / "node"
NODE_MODULES = CLIENTS / "node_modules"
IMAGE = ["PNG 64x64"]
INVALID = "invalid_request_error"
REFUSED = {
    "other model": (404, "not_found", None, "not_found"),
    "variation": (404, "not_found", None, "not_found"),
    "bad size": (400, INVALID, "size", "invalid_request"),
    "no such lora": (400, INVALID, "loras.0.name", "invalid_request"),
    "no such lora in a form": (400, INVALID, "loras.0.name", "invalid_request"),
    "transparent": (400, INVALID, "background", "invalid_request"),
}


@pytest.fixture(scope="module")
def server(demo_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log_file = tmp_path_factory.mktemp("clients") / "log"
    environment = demo_store.environment
    with serving("service:LpwSdxl", folder=ROOT, environment=environment, log_file=log_file) as one:
        yield one


def run(*arguments: str, program: Path = PYTHON, folder: Path = ROOT) -> str:
    assert program.exists(), "make test-doors installs the clients"
    done = subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=os.environ | {"NODE_PATH": str(NODE_MODULES)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def drive(server: Server, client: str) -> dict[str, Any]:
    outcomes: dict[str, Any] = json.loads(run(str(DRIVERS / f"drive_{client}.py"), server.url))
    return outcomes


def error_of(outcome: dict[str, Any]) -> tuple[Any, ...]:
    return outcome["status"], outcome["type"], outcome["param"], outcome["code"]


def test_openais_client_draws_by_every_call(server: Server) -> None:
    outcomes = drive(server, "openai")
    refused = {name: error_of(one) for name, one in outcomes.items() if isinstance(one, dict)}
    assert refused == REFUSED
    assert outcomes.pop("url").startswith(f"{server.url}/v1/images/files/")
    assert {name: one for name, one in outcomes.items() if name not in refused} == {
        "models": ["sdxl"],
        "model": "model",
        "alone": ["PNG 128x128"],
        "several": IMAGE * 2,
        "webp": ["WEBP 64x64"],
        "usage": 0,
        "again": True,
        "sampler": ["PNG 128x128"],
        "async": IMAGE,
        "stream": ["ImageGenCompletedEvent image_generation.completed"],
        "previews": "ImageGenCompletedEvent image_generation.completed",
        "edit": IMAGE,
        "edit of bytes": IMAGE,
        "edit of two": IMAGE,
        "edit with mask": IMAGE * 2,
        "edit by stream": ["ImageEditCompletedEvent image_edit.completed"],
    }
    assert "Traceback" not in server.log


def test_openais_client_for_node_draws_by_every_call(server: Server) -> None:
    if not (NODE_MODULES / "openai").exists():
        pytest.skip("npm could not install OpenAI's client for Node")
    printed = run(str(DRIVERS / "drive_openai.cjs"), server.url, program=NODE)
    outcomes: dict[str, Any] = json.loads(printed)
    refused = {name: error_of(one) for name, one in outcomes.items() if isinstance(one, dict)}
    assert refused == REFUSED | {
        "error in a stream": (400, INVALID, "loras.0.name", "invalid_request"),
    }
    assert {name: one for name, one in outcomes.items() if name not in refused} == {
        "alone": ["PNG"],
        "models": ["sdxl"],
        "model": "model",
        "several": ["PNG", "PNG"],
        "webp": ["WEBP"],
        "again": True,
        "url": True,
        "usage": 0,
        "seed": [7, "7"],
        "stream": ["image_generation.completed"],
        "previews": "image_generation.completed",
        "edit": ["PNG"],
        "edit of two": ["PNG"],
        "edit with mask": ["PNG", "PNG"],
        "edit by stream": ["image_edit.completed"],
        "too late": [408, 1],
        "cancelled": "aborted",
    }
    assert "Traceback" not in server.log


def test_litellm_draws_by_every_call(server: Server) -> None:
    outcomes = drive(server, "litellm")
    assert outcomes == dict.fromkeys(outcomes, True)
    assert len(outcomes) == 6


def test_webuiapi_draws_by_every_call(server: Server) -> None:
    outcomes = drive(server, "webuiapi")
    refused = {
        name: (one["status"], one["field"])
        for name, one in outcomes.items()
        if isinstance(one, dict) and "field" in one
    }
    assert refused == {
        "set other model": (None, "sd_model_checkpoint"),
        "interrogate": (404, None),
        "styles": (400, "styles"),
        "no such sampler": (400, "sampler_name"),
        "ControlNet": (422, "alwayson_scripts.ControlNet"),
        "ADetailer": (422, "alwayson_scripts.ADetailer"),
    }
    [model] = outcomes.pop("model names")
    assert model == outcomes.pop("current model")
    assert model.startswith("sdxl.safetensors [")
    kinds = {name: outcomes.pop(name) for name in [*outcomes] if name.startswith("get ")}
    assert len(kinds) == 17
    assert {*kinds.values()} == {"dict", "list"}
    drawn = ["64x64", 7]
    assert {name: one for name, one in outcomes.items() if name not in refused} == {
        **dict.fromkeys(("alone", "old name", "clip skip", "async", "password"), drawn),
        **dict.fromkeys(("img2img", "inpaint", "only masked"), drawn),
        "large": ["128x64", 7],
        "several": ["64x64"] * 4 + [7, 8, 9, 10],
        "variation": ["64x64"] * 2 + [7, 7],
        "hires": ["128x128", 7],
        "hires by pixels": ["96x96", 7],
        "interrupt": {},
        **dict.fromkeys(("refresh", "skip", "set model", "set options", "wait")),
        "sampler names": ["DDIM", "DPM++ 2M"],
        "scheduler names": ["align_your_steps", "align_your_steps_11"],
        "text of picture": "a red circle",
        "enlarge": ["128x128"],
        "enlarge two": ["128x128"] * 2,
    }
    assert "Traceback" not in server.log


def test_sd_backend_client_accepts_every_answer(server: Server) -> None:
    outcomes = drive(server, "sdbackend")
    drawn = {
        "txt2img": ["64x64", 7],
        "several": ["64x64", "64x64", 7, 8],
        "img2img": ["64x64", 7],
        "inpaint": ["64x64", 7],
        "enlarge": ["128x128"],
    }
    assert {name: outcomes.pop(name) for name in drawn} == drawn
    assert outcomes.pop("kind") == "A1111Webservice"
    failed = {name: one for name, one in outcomes.items() if isinstance(one, dict) and one}
    assert failed == {}
    assert outcomes["options of vaes"] is False
    assert len(outcomes) == 20


def test_the_program_on_the_page_draws(server: Server, tmp_path: Path) -> None:
    blocks = [block for page in DOCS for block in page.blocks if "import OpenAI" in block.text]
    assert len(blocks) == 1
    run("-c", blocks[0].text.replace("http://localhost:3000", server.url), folder=tmp_path)
    with Image.open(tmp_path / "circle.png") as image:
        assert image.size == (128, 128)
