"""Two hundred LoRAs: a service's caches of them stay within the settings."""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Iterator

import httpx
import psutil
import pytest

from addons import AddonMaker
from conftest import ROOT, Store, store_environment
from serving import Server, serving
from tests.forge.lora import LoraOptions
from tests.forge.lora_factors import SyntheticKind as Kind

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(1800)]

LORAS = 200
KINDS = (Kind.LORA, Kind.LOCON, Kind.DORA, Kind.LOHA, Kind.LOKR)
REQUESTS = 600
SAMPLE_EVERY = 10  # images
MEGABYTE = 1024 * 1024
FULL_AFTER = 60  # images; all that may be remembered is
GROWTH_MB = 40  # from then on
SETTINGS = {
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
        options = LoraOptions(kind=KINDS[number % len(KINDS)], seed=number)
        maker.lora(f"style-{number:03}", options)
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
    samples = []  # resident megabytes
    workers = psutil.Process(server.process.pid).children(recursive=True)
    worker = max(workers, key=lambda process: process.memory_info().rss)
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for number in range(1, REQUESTS + 1):
            names = draw.sample(range(LORAS), draw.randint(1, 3))
            loras = [{"name": f"style-{name:03}", "weight": draw.uniform(-1, 1)} for name in names]
            request = {"prompt": "a fox", "num_inference_steps": 2, "loras": loras, "seed": number}
            assert client.post("/generate", json=request).status_code == 200
            if number % SAMPLE_EVERY == 0:
                samples.append(worker.memory_info().rss / MEGABYTE)
        info = client.post("/info", json={}).json()
    assert len(info["loras"]) == LORAS
    files = info["lora_files"]
    assert files["bytes"] <= 4 * MEGABYTE
    assert files["misses"] > LORAS / 2  # they were read, and made room for each other
    # The allocator comes to keep some room of tensors of many sizes, 10 to 26 MB, no more after 700
    # images. One sample is 15 MB off another. All files would be 100 MB, all merged weights
    # gigabytes, and safetensors' leak where it maps files (0.8.0, 55 bytes a tensor) 80 MB.
    full, end = samples[FULL_AFTER // SAMPLE_EVERY :][:10], samples[-10:]
    assert statistics.median(end) - statistics.median(full) < GROWTH_MB, samples
