"""Two hundred LoRAs: what a service remembers of them stays within its settings."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator

import httpx
import numpy as np
import psutil
import pytest

from addons import AddonMaker
from conftest import ROOT, Store, store_environment
from serving import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LORAS = 200
KINDS = ("lora", "locon", "dora", "loha", "lokr")
REQUESTS = 600
SAMPLE_EVERY = 10  # images
MEGABYTE = 1024 * 1024
MAX_SLOPE_KB = 10  # an image, as the soak allows without LoRAs
SETTINGS = {
    # Each is full long before the second half of the requests.
    "LPW_SDXL_LORA_WEIGHTS_BYTES": str(40 * MEGABYTE),
    "LPW_SDXL_LORA_FILES_BYTES": str(4 * MEGABYTE),
    "LPW_SDXL_CONDITIONING_CACHE_BYTES": str(2 * MEGABYTE),
}


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = shutil.copytree(store.home, tmp_path_factory.mktemp("many") / "bentoml")
    environment = store_environment(home)
    maker = AddonMaker(store.model_directory, home, environment, tmp_path_factory.mktemp("files"))
    for number in range(LORAS):
        maker.lora(f"style-{number:03}", kind=KINDS[number % len(KINDS)], seed=number)
    maker.import_written()
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=environment | SETTINGS,
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield server


def test_memory_stays_within_its_bounds(server: Server) -> None:
    draw = random.Random(1)
    samples = []
    workers = psutil.Process(server.process.pid).children(recursive=True)
    worker = max(workers, key=lambda process: process.memory_info().rss)
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for number in range(1, REQUESTS + 1):
            names = draw.sample(range(LORAS), draw.randint(1, 3))
            loras = [{"name": f"style-{name:03}", "weight": draw.uniform(-1, 1)} for name in names]
            request = {"prompt": "a fox", "num_inference_steps": 2, "loras": loras, "seed": number}
            assert client.post("/generate", json=request).status_code == 200
            if number % SAMPLE_EVERY == 0:
                samples.append((number, worker.memory_info().rss / 1024))
        told = client.post("/info", json={}).json()
    assert len(told["loras"]) == LORAS
    files = told["lora_files"]
    assert files["bytes"] <= 4 * MEGABYTE
    assert files["misses"] > LORAS / 2  # they were read, and made room for each other
    images, kilobytes = zip(*samples[len(samples) // 2 :], strict=True)
    slope = np.polyfit(images, kilobytes, 1)[0]
    assert slope < MAX_SLOPE_KB, samples
