"""The service as its clients see it: a real `bentoml serve`, real HTTP, BentoML's own clients."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from conftest import ROOT, Store, store_environment
from serving import Server, assert_one_sentence, serve_to_its_end, serving

pytestmark = pytest.mark.processes

SECRET = "zyzzyva"
JSON = {"content-type": "application/json"}


@pytest.fixture
def server(plain_server: Server) -> Server:
    return plain_server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def generate(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/generate", json={"prompt": SECRET, "num_inference_steps": 3} | fields)


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_a_request_gives_a_png_with_its_seed(client: httpx.Client) -> None:
    response = generate(client, seed=7)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-seed"] == "7"
    image = Image.open(io.BytesIO(response.content))
    assert image.size == (128, 128)
    assert image.info["seed"] == "7"
    assert (
        f"{SECRET}\nSteps: 3, Sampler: Euler, Schedule type: leading, CFG scale: 5, Seed: 7"
        in image.info["parameters"]
    )


def test_a_schedule_type_is_honoured_by_any_of_its_names(client: httpx.Client) -> None:
    images = [
        generate(client, seed=7, schedule_type=name)
        for name in ("trailing", "sgm_uniform", "SGM Uniform", "leading", None)
    ]
    contents = [image.content for image in images]
    assert contents[0] == contents[1] == contents[2]
    assert contents[3] == contents[4]
    assert np.abs(pixels(contents[0]) - pixels(contents[3])).max() > 8
    text = Image.open(io.BytesIO(contents[1])).info["parameters"]
    assert "Sampler: Euler, Schedule type: trailing, CFG scale" in text


def test_a_schedule_type_that_the_scheduler_does_not_take_is_refused(client: httpx.Client) -> None:
    refused = generate(client, scheduler="DPM++ 2M Karras", schedule_type="trailing")
    assert refused.status_code == 400
    assert refused.json()["error"]["field"] == "schedule_type"
    assert "null would be right" in refused.json()["error"]["message"]


def test_info_lists_schedule_types_and_the_models_own(client: httpx.Client) -> None:
    info = client.post("/info", json={}).json()
    assert info["schedule_types"] == ["leading", "trailing", "linspace"]
    assert info["own_schedule_type"] == info["model"]["schedule_type"] == "leading"
    document = client.get("/docs.json").json()
    field = document["components"]["schemas"]["GenerationRequest"]["properties"]["schedule_type"]
    assert field["anyOf"][2]["enum"] == ["sgm_uniform", "ddim_uniform"]


def test_info_lists_what_k_diffusion_has(client: httpx.Client) -> None:
    listed = client.post("/info", json={}).json()["k_diffusion"]
    assert listed["own_sampler"] == "Euler"
    assert len(listed["samplers"]) == 17
    assert listed["schedule_types"][:3] == ["Automatic", "Uniform", "Karras"]
    assert listed["noise_sources"] == ["cpu", "nv"]
    assert listed["timestep_roundings"] == ["interpolate", "nearest"]


def test_a_sampler_of_k_diffusion_draws_and_writes_its_names(client: httpx.Client) -> None:
    options = {"scheduler": "DPM++ 2M", "noise_source": "nv", "timestep_rounding": "nearest"}
    drawn = generate(client, sampler_implementation="k_diffusion", seed=3, **options)
    text = Image.open(io.BytesIO(drawn.content)).text["parameters"]
    assert "Sampler: DPM++ 2M, Schedule type: Karras" in text
    assert "RNG: NV" in text
    assert "Sampler implementation: k_diffusion, Timestep rounding: nearest" in text
    other = generate(client, scheduler="DPM++ 2M", seed=3)
    assert other.status_code == 200
    assert other.content != drawn.content
    refused = generate(client, sampler_implementation="k_diffusion", scheduler="DPM adaptive")
    assert refused.status_code == 400
    assert refused.json()["error"]["field"] == "scheduler"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_device_is_in_info_log_and_metrics(client: httpx.Client, server: Server) -> None:
    memory = client.post("/info", json={}).json()["memory"]
    hardware = memory["hardware"]
    assert hardware["device"] == memory["device"] == "cpu"
    assert hardware["name"]
    assert hardware["total_bytes"] > 10**9
    assert hardware["threads"] >= 1
    assert [hardware[name] for name in ("free_bytes", "driver", "compute_capability")] == [None] * 3
    assert memory["offload_rule"] == "cpu"
    (line,) = re.findall(r"memory: (.*)", server.log)
    assert line.startswith(f"cpu is {hardware['name']} (")
    assert f"everything stays on cpu ({memory['offload_reason']}), in float32" in line
    (series,) = re.findall(
        r"^lpw_sdxl_device_info\{(.*)\} 1\.0$", client.get("/metrics").text, re.MULTILINE
    )
    labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
    assert labels == {
        "kind": "cpu",
        "name": hardware["name"],
        "driver": "",
        "compute_capability": "",
        "is_offloading": "false",
        "offload_rule": "cpu",
    }


def test_a_drawn_seed_is_told_and_makes_the_same_image_again(client: httpx.Client) -> None:
    first = generate(client)
    again = generate(client, seed=int(first.headers["x-seed"]))
    assert again.content == first.content


@pytest.mark.parametrize(("name", "form"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats(client: httpx.Client, name: str, form: str) -> None:
    response = generate(client, image_format=name, width=64, height=72)
    assert response.headers["content-type"] == f"image/{name}"
    image = Image.open(io.BytesIO(response.content))
    assert (image.format, image.size) == (form, (64, 72))


BAD = {
    "unknown field": ({"prompt": SECRET, "widht": 64}, 400, "widht"),
    "missing prompt": ({"seed": 1}, 400, "prompt"),
    "NaN": (f'{{"prompt": "{SECRET}", "guidance_scale": NaN}}', 400, "guidance_scale"),
    "width of 1023": ({"prompt": SECRET, "width": 1023}, 400, "width"),
    "0 steps": ({"prompt": SECRET, "num_inference_steps": 0}, 400, "num_inference_steps"),
    "700 kB of prompt": ({"prompt": SECRET * 100_000}, 400, "prompt"),
    "17 MB of body": ({"prompt": SECRET * 2_500_000}, 413, None),
    "a weight beyond all": ({"prompt": f"({SECRET}:1e9)"}, 200, None),  # no number: text
    "a weight over the limit": ({"prompt": f"({SECRET}:101)"}, 400, "prompt"),
    "deep brackets": ({"prompt": "(" * 65 + SECRET}, 400, "prompt"),
    "a LoRA that is not here": ({"prompt": f"{SECRET} <lora:absent:1>"}, 400, "prompt"),
    "clip_skip too deep": ({"prompt": SECRET, "clip_skip": 31}, 400, "clip_skip"),
    "not JSON": ("{", 400, None),
    "nested JSON": ("[" * 100_000, 400, None),
}


def new_lines(server: Server, before: str) -> list[str]:
    """Return the new part of the log; a request's line is written just after the answer."""
    deadline = time.monotonic() + 5
    while "POST /" not in server.log[len(before) :] and time.monotonic() < deadline:
        time.sleep(0.02)
    return server.log[len(before) :].strip().splitlines()


@pytest.mark.parametrize(("body", "status", "field"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_answered_by_its_field(
    client: httpx.Client, server: Server, body: object, status: int, field: str | None
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    before = server.log
    response = client.post("/generate", content=content, headers=JSON)
    assert response.status_code == status
    if status != 200:
        assert set(response.json()) == {"error"}
        assert response.json()["error"]["field"] == field
        assert SECRET not in response.text
    *encoded, line = new_lines(server, before)
    assert f"POST /generate {status}" in line
    assert len(encoded) == (status == 200)  # tokens and chunks of what was accepted
    assert all("prompt of 7 tokens in 1 chunks" in line for line in encoded)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("GET", "/generate", 405, "method_not_allowed")],
)
def test_bentomls_own_errors_get_the_one_shape(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


def test_a_batch_of_four_with_one_bad_item(client: httpx.Client) -> None:
    items = [{"prompt": SECRET, "num_inference_steps": 3, "seed": seed} for seed in range(4)]
    items[2]["width"] = 1023
    answers = client.post("/generate_batch", json={"requests": items}).json()
    assert [answer["status"] for answer in answers] == ["ok", "ok", "error", "ok"]
    assert set(answers[2]) == {"status", "code", "message", "field"}
    assert (answers[2]["code"], answers[2]["field"]) == ("invalid_request", "width")
    for seed in (0, 1, 3):
        answer = answers[seed]
        assert (answer["seed"], answer["width"], answer["media_type"]) == (seed, 128, "image/png")
        alone = generate(client, seed=seed)
        batched = pixels(base64.b64decode(answer["image"]))
        assert np.abs(batched - pixels(alone.content)).max() <= 1


@pytest.mark.parametrize("item", [None, 5, "a", [], {"prompt": 1}])
def test_a_batch_item_of_any_kind_is_an_answer(client: httpx.Client, item: object) -> None:
    (answer,) = client.post("/generate_batch", json={"requests": [item]}).json()
    assert answer["status"] == "error"


def test_an_empty_batch_is_refused(client: httpx.Client) -> None:
    response = client.post("/generate_batch", json={"requests": []})
    assert (response.status_code, response.json()["error"]["field"]) == (400, "requests")


def mixed_requests() -> list[dict[str, Any]]:
    """Build eight requests that differ in everything; prompts of 1 to 400 tokens."""
    schedulers = ["Euler", "Euler a", "DPM++ 2M Karras", "DDIM", "DPM++ 2M"]
    lengths = [1, 400, 20, 75, 76, 150, 230, 310]
    return [
        {
            "prompt": " ".join(["fox", *["snow"] * (length - 1)]),
            "negative_prompt": "blurry " * (number * 7),
            "num_inference_steps": 5 + round(number * 25 / 7),
            "guidance_scale": 1 + number * 11 / 7,
            "scheduler": schedulers[number % len(schedulers)],
            "seed": number,
        }
        for number, length in enumerate(lengths)
    ]


async def test_eight_different_requests_at_once_give_what_each_gives_alone(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        requests = mixed_requests()
        alone = [await client.post("/generate", json=request) for request in requests]
        before = (await client.post("/info", json={})).json()["engine"]["unet_calls_by_jobs"]
        shared = await asyncio.gather(
            *(client.post("/generate", json=request) for request in requests)
        )
        after = (await client.post("/info", json={})).json()["engine"]["unet_calls_by_jobs"]
    for one, many in zip(alone, shared, strict=True):
        assert np.abs(pixels(one.content) - pixels(many.content)).max() <= 1
    carried = {int(jobs): count - before.get(jobs, 0) for jobs, count in after.items()}
    assert sum(count for jobs, count in carried.items() if jobs >= 4) >= 5, carried


async def test_a_client_that_leaves_frees_its_place(server: Server) -> None:
    long = {"prompt": "a", "num_inference_steps": 150, "width": 256, "height": 256}
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:

        async def engine() -> dict[str, int]:
            counters: dict[str, int] = (await client.post("/info", json={})).json()["engine"]
            return counters

        before = await engine()
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/generate", json=long, timeout=0.5)
        async with asyncio.timeout(20):
            while (await engine())["queued_jobs"]:
                await asyncio.sleep(0.05)
        after = await engine()
    assert after["left"] == before["left"] + 1
    assert after["images"] == before["images"]


def test_bentomls_sync_client(server: Server) -> None:
    with bentoml.SyncHTTPClient(server.url, timeout=120) as client:
        image = client.generate(prompt="a fox", num_inference_steps=3, seed=5)
        assert isinstance(image, Image.Image)
        assert image.info["seed"] == "5"
        answers = client.generate_batch(requests=[{"prompt": "a", "num_inference_steps": 2}])
        assert answers[0]["status"] == "ok"
        assert client.inspect_prompt(prompt="(a:1.3)")["prompt"]["spans"][0]["weight"] == 1.3


async def test_bentomls_async_client(server: Server) -> None:
    async with bentoml.AsyncHTTPClient(server.url, timeout=120) as client:
        image = await client.generate(prompt="a fox", num_inference_steps=3, seed=5)
        assert isinstance(image, Image.Image)
        answers = await client.generate_batch(
            requests=[{"prompt": "a", "num_inference_steps": 2}, {"prompt": "b", "width": 1}]
        )
        assert [answer["status"] for answer in answers] == ["ok", "error"]


def test_an_inspection_tells_chunks_weights_and_warnings(client: httpx.Client) -> None:
    body = {"prompt": "a (red:1.3) fox BREAK " + "snow " * 80 + "(", "negative_prompt": "x"}
    explained = client.post("/inspect_prompt", json=body).json()
    assert [window["token_count"] for window in explained["prompt"]["windows"]] == [3, 75, 5]
    assert {"text": "red", "weight": 1.3, "start": 3, "end": 6} in explained["prompt"]["spans"]
    assert len(explained["prompt"]["warnings"]) == 1
    assert explained["prompt"]["token_counts"] == [83, 83]
    ends = [(window["start"], window["end"]) for window in explained["prompt"]["windows"]]
    assert ends == [(0, 15), (22, 396), (397, 421)]


def test_an_inspection_has_the_text_of_each_step(client: httpx.Client) -> None:
    body = {
        "prompt": "a [cat:(dog:1.2):0.5] AND snow :0.7",
        "negative_prompt": "x AND y",
        "prompt_style": "a1111",
        "num_inference_steps": 2,
        "scheduler": "Heun",
    }
    explained = client.post("/inspect_prompt", json=body).json()
    snow = {"text": " snow", "weight": 0.7}
    assert explained["schedule"] == {
        "prompt": [
            {"until_step": 2, "parts": [{"text": "a cat", "weight": 1.0}, snow]},
            {"until_step": 4, "parts": [{"text": "a (dog:1.2)", "weight": 1.0}, snow]},
        ],
        "negative_prompt": [{"until_step": 4, "parts": [{"text": "x AND y", "weight": 1.0}]}],
    }
    texts = explained["prompt"]["texts"]
    assert [one["runs"] for one in texts] == [[[0, 2], [3, 6]], [[0, 2], [7, 16]], [[25, 30]]]
    assert texts[1]["explanation"]["spans"][1] == (
        {"text": "dog", "weight": 1.2, "start": 8, "end": 11}
    )
    assert explained["prompt"]["token_counts"] == [2, 2]
    assert "the word AND is read as text" in explained["negative_prompt"]["warnings"][0]


def test_an_inspection_tells_lora_tags_and_reads_the_style(client: httpx.Client) -> None:
    body = {"prompt": "(a <lora:b:.5> : 1.3)", "prompt_style": "a1111"}
    explained = client.post("/inspect_prompt", json=body).json()["prompt"]
    assert explained["lora_tags"] == [
        {"name": "b", "weight": 0.5, "text_encoder_weight": 0.5, "start": 3, "end": 14}
    ]
    assert [span["weight"] for span in explained["spans"]] == [1.3]


def test_probes_and_metrics_answer(client: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200


def series(client: httpx.Client) -> dict[str, float]:
    """Read our own part of /metrics."""
    lines = client.get("/metrics").text.splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("lpw_sdxl_")]
    assert len(dict(pairs)) == len(pairs)  # one worker, one series
    return {name: float(value) for name, value in pairs}


def test_the_workers_metrics_are_served_and_their_number_is_constant(client: httpx.Client) -> None:
    before = series(client)
    generate(client, prompt=SECRET)
    client.post("/generate", json={"prompt": "(" * 65 + SECRET})
    client.post("/generate", json={"prompt": f"{SECRET} <lora:absent:1>"})
    client.post("/generate_batch", json={"requests": [{"prompt": SECRET}, {"prompt": 1}]})
    after = series(client)
    assert list(after) == list(before)
    gained = {name: after[name] - before[name] for name in after}
    assert gained["lpw_sdxl_images_total"] == 2
    assert gained["lpw_sdxl_queue_wait_seconds_count"] == 2
    assert gained["lpw_sdxl_prompt_chunks_total"] == 4  # two prompts and two negative prompts
    assert gained['lpw_sdxl_stage_seconds_count{stage="decode"}'] == 2
    assert (
        gained["lpw_sdxl_step_rows_count"] == gained['lpw_sdxl_stage_seconds_count{stage="step"}']
    )
    assert gained["lpw_sdxl_step_rows_sum"] >= 2 * 3  # two images, three steps, two rows each
    assert after["lpw_sdxl_queue_jobs"] == after["lpw_sdxl_active_jobs"] == 0
    assert gained['lpw_sdxl_cache_hits_total{cache="conditionings"}'] >= 1  # the prompt came twice
    assert gained['lpw_sdxl_stage_seconds_count{stage="file"}'] == 2
    assert 0 < gained['lpw_sdxl_stage_seconds_sum{stage="file"}'] < 10
    assert gained['lpw_sdxl_errors_total{code="invalid_prompt"}'] == 1
    assert gained['lpw_sdxl_errors_total{code="invalid_request"}'] == 2
    assert sum(gained[name] for name in gained if name.startswith("lpw_sdxl_errors")) == 3


def test_the_log_tells_how_it_started_and_no_prompt(server: Server, store: Store) -> None:
    log = server.log
    assert len(re.findall(rf"model {store.tag} found: \d+ files", log)) == 1
    assert len(re.findall(r"model verified \(contents\) after [\d.]+ s", log)) == 1
    assert len(re.findall(r"packages imported in [\d.]+ s", log)) == 1
    assert len(re.findall(r"ready [\d.]+ s after the port was open", log)) == 1
    assert len(re.findall(r"model loaded in [\d.]+ s", log)) == 1
    assert len(re.findall(r"memory: cpu is .*; everything stays on cpu", log)) == 1
    assert len(re.findall(r"prompts of up to 64 chunks", log)) == 1
    assert len(re.findall(r"LPW_SDXL_COMPILE is set and has no effect any more", log)) == 1
    assert SECRET not in log
    assert "Traceback" not in log
    assert "runcat" not in log  # truncated, truncation: no prompt is cut
    assert "Loading weights" not in log


READINESS = """
import time
import service
from starlette.testclient import TestClient

engines = []
load = service.LpwSdxl.inner.load_engine

def remember(self):
    engines.append(load(self))
    return engines[0]

service.LpwSdxl.inner.load_engine = remember
with TestClient(service.LpwSdxl.to_asgi()) as client:
    while client.get("/ping").status_code == 204:
        time.sleep(0.05)
    print(client.get("/readyz").status_code, client.get("/livez").status_code)
    engines[0].close()
    refused = client.post("/generate", json={"prompt": "a"})
    print(client.get("/readyz").status_code, client.get("/livez").status_code)
    print(refused.status_code, refused.json()["error"]["code"])
"""


def test_liveness_and_readiness_follow_the_engine(store: Store) -> None:
    """The real application in a process whose engine can be reached, and stopped."""
    done = subprocess.run(
        [sys.executable, "-c", READINESS],
        cwd=ROOT,
        env=store.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == ["200 200", "503 503", "503 unavailable"]


def test_no_model_ends_the_start_with_the_command_to_run(tmp_path: Path) -> None:
    ended = serve_to_its_end(store_environment(tmp_path))
    assert_one_sentence(ended, "sdxl:latest", "model_import.py demo")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LPW_SDXL_MAX_ROWS", "many"),
        ("LPW_SDXL_DEVICE", "cuda:1"),
        ("LPW_SDXL_DEVICE", "gpu"),
        ("LPW_SDXL_LORA_DIR", "/nowhere"),
    ],
)
def test_a_setting_that_cannot_be_used_ends_the_start(
    store: Store, variable: str, value: str
) -> None:
    assert_one_sentence(serve_to_its_end(store.environment | {variable: value}), variable)


@pytest.mark.parametrize("damage", ["missing file", "cut file", "no manifest"])
def test_a_damaged_model_ends_the_start(store: Store, tmp_path: Path, damage: str) -> None:
    shutil.copytree(store.home / "models", tmp_path / "models")
    model = tmp_path / "models" / Path(*store.tag.split(":"))
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    match damage:
        case "missing file":
            weights.unlink()
        case "cut file":
            weights.write_bytes(weights.read_bytes()[:-10])
        case "no manifest":
            (model / "manifest.json").unlink()
    ended = serve_to_its_end(store_environment(tmp_path))
    assert_one_sentence(ended, store.tag, "model_import.py")


@pytest.fixture
def large_store(store: Store, tmp_path: Path) -> Path:
    """A store whose model has a file of a gigabyte more, as a real one has."""
    shutil.copytree(store.home / "models", tmp_path / "models")
    model = tmp_path / "models" / Path(*store.tag.split(":"))
    padding = model / "unet" / "padding.bin"
    with padding.open("wb") as file:
        file.truncate(10**9)
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["files"]["unet/padding.bin"] = {"size": 10**9, "sha256": sha256_of_zeros(10**9)}
    (model / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def sha256_of_zeros(size: int) -> str:
    digest = hashlib.sha256()
    for _ in range(size // 10**6):
        digest.update(bytes(10**6))
    return digest.hexdigest()


DRIVER = """
static const int failure = {failure}, cuda = {cuda}, devices = {devices};
int cuInit(unsigned flags) {{ return failure; }}
int cuDriverGetVersion(int *version) {{ *version = cuda; return 0; }}
int cuDeviceGetCount(int *count) {{ *count = devices; return 0; }}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for a driver of its own")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("driver", "parts"),
    [
        (None, ["this machine shows no NVIDIA driver"]),
        ({"failure": 0, "cuda": 13000, "devices": 0}, ["the NVIDIA driver", "shows no GPU"]),
        ({"failure": 100, "cuda": 13000, "devices": 0}, ["whose cuInit answers 100,"]),
        (
            {"failure": 0, "cuda": 12040, "devices": 1},
            ["serves CUDA 12.4 and is too old", "(9.9.9+cu130)", "needs driver 580 or newer"],
        ),
    ],
    ids=["no driver", "no device", "a driver that fails", "a driver that is too old"],
)
def test_a_machine_whose_gpu_cannot_be_used_is_told_apart(
    large_store: Path, tmp_path: Path, driver: dict[str, int] | None, parts: list[str]
) -> None:
    """The real supervisor with a driver's library and torch's version file of the test's own."""
    torch_folder = tmp_path / "packages" / "torch"
    torch_folder.mkdir(parents=True)
    (torch_folder / "__init__.py").write_text("raise ImportError('the supervisor needs no torch')")
    (torch_folder / "version.py").write_text("__version__ = '9.9.9+cu130'\ncuda = '13.0'\n")
    environment = store_environment(large_store) | {"PYTHONPATH": str(torch_folder.parent)}
    if driver is not None:
        source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
        source.write_text(DRIVER.format(**driver))
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        environment["LD_LIBRARY_PATH"] = str(tmp_path)
    ended = serve_to_its_end(environment)
    assert_one_sentence(ended, "CUDA can't be used", "LPW_SDXL_DEVICE=cpu", *parts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_real_model_is_not_served_on_a_cpu_that_nobody_asked_for(
    large_store: Path, tmp_path: Path
) -> None:
    ended = serve_to_its_end(store_environment(large_store))
    assert_one_sentence(ended, "CUDA can't be used", "1.0 GB", "LPW_SDXL_DEVICE=cpu")
    ended = serve_to_its_end(store_environment(large_store) | {"LPW_SDXL_DEVICE": "cuda"})
    assert_one_sentence(ended, "LPW_SDXL_DEVICE is cuda", "auto or cpu would be right")
    environment = store_environment(large_store) | {"LPW_SDXL_DEVICE": "cpu"}
    with serving(
        "service:LpwSdxl", folder=ROOT, environment=environment, log_file=tmp_path / "log"
    ):
        pass  # it is ready
