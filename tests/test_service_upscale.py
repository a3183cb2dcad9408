"""Pictures enlarged by a real service: BentoML's clients, plain HTTP, refusals, and leaving."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import bentoml
import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from conftest import ROOT, Store, store_environment
from lpw_sdxl.schema import ImageSize
from lpw_sdxl.upscaling.network import UpscalerNetwork
from lpw_sdxl.upscaling.tiles import upscale
from serving import Server, serving
from tests.forge.scenes import draw_picture
from tests.forge.upscalers import EsrganRecipe
from tests.upscaler_folder import SCALES, write_upscalers

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

PIXELS = draw_picture(ImageSize(height=56, width=72))
SLOW = EsrganRecipe(doublings=2)
"""A second or more for each of its tiles."""


def as_text(pixels: np.ndarray[Any, Any] = PIXELS) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def expected(name: str) -> np.ndarray[Any, Any]:
    tensors, device = SCALES[name].tensors(), torch.device("cpu")
    return upscale(UpscalerNetwork(tensors, name, device, torch.float32), PIXELS)


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("upscalers")
    write_upscalers(folder)
    save_file(SLOW.tensors(), folder / "slow.safetensors")
    settings = {"LPW_SDXL_UPSCALER_DIR": str(folder), "LPW_SDXL_MAX_IMAGE_BYTES": "2000000"}
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=store_environment(store.home) | settings,
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield server


def info(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx.post(f"{server.url}/info", json={}, timeout=60).json()
    return found


def until(condition: Any) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + 60
        time.sleep(0.05)


async def test_both_clients_of_bentoml_enlarge_a_picture(server: Server) -> None:
    until(lambda: "slow" in info(server)["upscalers"])
    with bentoml.SyncHTTPClient(server.url, timeout=120) as client:
        image = client.upscale(image=as_text(), upscaler="two-times")
        assert np.array_equal(np.asarray(image), expected("two-times"))
        plain = await asyncio.to_thread(client.upscale, image=as_text(), width=200)
        assert plain.size == (200, round(200 * 56 / 72))
    async with bentoml.AsyncHTTPClient(server.url, timeout=120) as client:
        image = await client.upscale(image=as_text(), upscaler="four-times", scale=4)
        assert np.array_equal(np.asarray(image), expected("four-times"))
    assert info(server)["engine"]["upscales"] >= 3
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'lpw_sdxl_stage_seconds_count{stage="enlarge"}' in metrics
    assert "lpw_sdxl_upscales_total" in metrics


def test_plain_http_has_the_format_that_it_asks_for(server: Server) -> None:
    for name in ("png", "jpeg", "webp"):
        body = {"image": as_text(), "image_format": name, "scale": 3}
        answer = httpx.post(f"{server.url}/upscale", json=body, timeout=60)
        assert answer.headers["content-type"] == f"image/{name}"
        assert Image.open(io.BytesIO(answer.content)).size == (216, 168)


REFUSED: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "nothing": ({}, 400, "image"),
    "a URL": ({"image": "https://example.org/a.png"}, 400, "image"),
    "no picture": ({"image": "AAAA"}, 400, "image"),
    "an unknown field": ({"image": as_text(), "prompt": "a"}, 400, "prompt"),
    "an unknown upscaler": ({"image": as_text(), "upscaler": "ultra"}, 400, "upscaler"),
    "a latent one": ({"image": as_text(), "upscaler": "latent"}, 400, "upscaler"),
    "too large": ({"image": as_text(), "width": 9000}, 400, "width"),
    "a large file": ({"image": "A" * 2_800_000}, 400, "image"),
    "a larger body": ({"image": "A" * 4_000_000}, 413, None),
    "a short time": (
        {"image": as_text(), "upscaler": "slow", "scale": 8, "deadline_s": 0.001},
        408,
        "deadline_s",
    ),
}


@pytest.mark.parametrize(("body", "status", "field"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_named_and_leaves_no_trace(
    server: Server, body: dict[str, Any], status: int, field: str | None
) -> None:
    answer = httpx.post(f"{server.url}/upscale", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["field"] == field
    assert "Traceback" not in server.log


def test_a_job_is_listed_cancelled_and_freed_when_its_client_leaves(server: Server) -> None:
    """The picture has several tiles of seconds each, of which a leaving client waits for one."""
    large = as_text(np.tile(PIXELS, (16, 12, 1)))
    body = {"image": large, "upscaler": "slow", "request_id": "mine"}

    def under_way() -> dict[str, Any]:
        jobs = httpx.get(f"{server.url}/jobs", timeout=60).json()
        return next((job for job in jobs if job["request_id"] == body["request_id"]), {})

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/upscale", json=body, timeout=httpx.Timeout(60, read=0.5))
    until(lambda: under_way().get("state") == "cancelled")
    until(lambda: info(server)["engine"]["queued_jobs"] == 0)

    body["request_id"] = "other"
    asyncio.run(_cancel_under_way(server, body, under_way))
    until(lambda: info(server)["engine"]["queued_jobs"] == 0)
    assert "Traceback" not in server.log


async def _cancel_under_way(server: Server, body: dict[str, Any], under_way: Any) -> None:
    async with httpx.AsyncClient(timeout=200) as client:
        working = asyncio.ensure_future(client.post(f"{server.url}/upscale", json=body))
        while not (found := await asyncio.to_thread(under_way)).get("calls"):
            await asyncio.sleep(0.05)
        assert found["calls"] == found["steps"] > 3
        # Images go on beside it.
        wanted = {"prompt": "a", "num_inference_steps": 2, "width": 64, "height": 64}
        assert (await client.post(f"{server.url}/generate", json=wanted)).status_code == 200
        assert (await client.delete(f"{server.url}/jobs/other")).status_code == 200
        answer = await working
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cancelled")
