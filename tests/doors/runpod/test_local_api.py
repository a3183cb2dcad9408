"""The worker behind the local server of RunPod's package: `--rp_serve_api`."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from conftest import ROOT, Store
from runpod_worker import PYTHON, working
from serving import free_port

pytestmark = [pytest.mark.processes, pytest.mark.runpod]

SMALL = {"width": 64, "height": 64, "steps": 3}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"prompt": "a", "steps": 0}, "steps"),
    "sampler": ({"prompt": "a", "sampler_name": "none such"}, "sampler_name"),
    "lora": ({"prompt": "a", "loras": ["none such"]}, "loras.0.name"),
    "no prompt": ({"steps": 3}, "prompt"),
}


@pytest.fixture(scope="module")
def url(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    options = ["--rp_serve_api", "--rp_api_port", str(port), "--rp_api_host", "127.0.0.1"]
    environment = store.environment | {"OMP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("local")
    with working(environment, folder, options) as worker:
        worker.wait_for("Uvicorn running on")
        yield f"http://127.0.0.1:{port}"
        assert "Traceback" not in worker.log
        assert "a secret prompt" not in worker.log


def run(url: str, fields: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{url}/runsync", json={"input": fields}, timeout=120)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def pixels(image: dict[str, Any]) -> bytes:
    with Image.open(io.BytesIO(base64.b64decode(image["image"]))) as opened:
        return opened.tobytes()


def test_eight_jobs_at_once_are_done_or_refused_each_by_itself(url: str) -> None:
    right = [{"prompt": "a secret prompt", "seed": seed, **SMALL} for seed in range(4)]
    inputs = [*right, *(fields for fields, _ in WRONG.values())]
    with ThreadPoolExecutor(len(inputs)) as pool:
        answers = [*pool.map(lambda fields: run(url, fields), inputs)]
    for seed, answer in enumerate(answers[:4]):
        assert answer["status"] == "COMPLETED", answer
        (image,) = answer["output"]["images"]
        assert (image["seed"], image["width"], image["height"]) == (seed, 64, 64)
        assert image["media_type"] == "image/png"
        assert f"Seed: {seed}" in image["parameters"]
    assert len({pixels(answer["output"]["images"][0]) for answer in answers[:4]}) == 4
    for answer, (_, field) in zip(answers[4:], WRONG.values(), strict=True):
        assert answer["status"] == "FAILED"
        error = json.loads(answer["error"])
        assert error["field"] == field
        assert error["code"] in ("invalid_request", "invalid_prompt")


def test_several_images_of_one_job_are_those_of_their_seeds(url: str) -> None:
    several = run(url, {"prompt": "a fox", "seed": 5, "batch_size": 2, **SMALL})
    alone = run(url, {"prompt": "a fox", "seed": 6, **SMALL})
    images = several["output"]["images"]
    assert [image["seed"] for image in images] == [5, 6]
    pairs = zip(pixels(images[1]), pixels(alone["output"]["images"][0]), strict=True)
    assert max(abs(one - other) for one, other in pairs) <= 1  # as in any other company


def test_an_input_of_another_kind_is_refused_by_runpods_own_server(url: str) -> None:
    assert httpx.post(f"{url}/runsync", json={"input": "a fox"}).status_code == 422


def test_the_test_input_of_the_deployment_draws(store: Store) -> None:
    """As RunPod's package does it: the file beside the handler is the job."""
    done = subprocess.run(
        [PYTHON, "-m", "lpw_sdxl.doors.runpod"],
        cwd=ROOT / "deploy" / "runpod",
        env=store.environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "completed successfully" in done.stdout
