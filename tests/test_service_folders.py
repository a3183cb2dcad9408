"""LoRAs and embeddings that come and go under a real service: in folders, and in its store."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from addons import AddonMaker
from conftest import ROOT, Store, store_environment
from lpw_sdxl.lora.targets import read_targets
from serving import Server, serving
from stores import import_here, run_here
from test_service_loras import generate, picture
from tests.forge.lora import LoraOptions, write_lora

pytestmark = pytest.mark.processes


@dataclass(frozen=True)
class Place:
    """A service's folders, and the files to fill them with."""

    home: Path
    loras: Path
    embeddings: Path
    maker: AddonMaker

    def write(self, path: Path, seed: int) -> Path:
        """Write a LoRA elsewhere, and move it to a path in one step."""
        partial = self.maker.folder / "partial.safetensors"
        write_lora(partial, read_targets(self.maker.model_directory), LoraOptions(seed=seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        return partial.replace(path)


@pytest.fixture(scope="module")
def place(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Place:
    home = tmp_path_factory.mktemp("folders")
    shutil.copytree(store.home, home, dirs_exist_ok=True)
    files = tmp_path_factory.mktemp("files")
    maker = AddonMaker(store.model_directory, home, store_environment(home), files)
    loras, embeddings = tmp_path_factory.mktemp("loras"), tmp_path_factory.mktemp("embeddings")
    made = Place(home, loras, embeddings, maker)
    made.write(loras / "at-start.safetensors", 1)
    maker.embedding("glow", 2, seed=2)
    [(_, _, path)] = maker._written
    path.rename(embeddings / path.name)
    maker._written.clear()
    return made


@pytest.fixture(scope="module")
def server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folders = {
        "LPW_SDXL_LORA_DIR": str(place.loras),
        "LPW_SDXL_EMBEDDING_DIR": str(place.embeddings),
    }
    with serving(
        "service:LpwSdxl",
        folder=ROOT,
        environment=place.maker.environment | folders,
        log_file=tmp_path_factory.mktemp("service") / "log",
    ) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def names(client: httpx.Client, kind: str = "loras") -> list[str]:
    return [one["name"] for one in client.post("/info", json={}).json()[kind]]


def wait(is_so: Callable[[], object]) -> float:
    """Wait until it is so; return the seconds that it took."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < 30
        time.sleep(0.05)
    return time.monotonic() - started


def difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> int:
    return int(np.abs(one - other).max())


def test_what_is_there_at_the_start_serves_from_the_first_request(
    client: httpx.Client, place: Place
) -> None:
    plain = picture(client)
    assert difference(picture(client, "<lora:at-start:1>"), plain) > 8
    assert difference(picture(client, "glow"), picture(client, "glowing")) > 1
    assert names(client) == ["at-start"]
    assert names(client, "embeddings") == ["glow"]


def test_a_file_that_comes_and_goes_is_served_without_a_restart(
    client: httpx.Client, server: Server, place: Place
) -> None:
    path = place.write(place.loras / "styles" / "ink.safetensors", 3)
    wait(lambda: "ink" in names(client))
    first = picture(client, "<lora:ink:1>")
    place.write(path, 4)
    assert difference(picture(client, "<lora:ink:1>"), first) > 8
    place.write(path, 3)
    assert difference(picture(client, "<lora:ink:1>"), first) == 0
    path.unlink()
    refused = generate(client, "<lora:ink:1>")
    assert refused.status_code == 400
    assert refused.json()["error"]["field"] == "prompt"
    assert "No LoRA is named 'ink'" in refused.json()["error"]["message"]
    assert "ink" not in names(client)


def test_the_same_file_imported_and_in_a_folder_draws_the_same(
    client: httpx.Client, place: Place
) -> None:
    path = place.write(place.loras / "twin.safetensors", 5)
    wait(lambda: "twin" in names(client))
    loose = picture(client, "<lora:twin:0.7>")
    import_here(place.home, "lora", str(path), "--name", "imported")
    wait(lambda: "imported" in names(client))
    assert difference(picture(client, "<lora:imported:0.7>"), loose) == 0
    # What is imported counts before a file in the folder that has its name.
    other = place.write(place.maker.folder / "other.safetensors", 6)
    import_here(place.home, "lora", str(other), "--name", "twin")
    wait(lambda: difference(picture(client, "<lora:twin:0.7>"), loose) > 8)
    [tag] = [line for line in os.listdir(place.home / "models") if line == "lora-twin"]
    assert run_here(place.home, "remove", f"{tag}:latest").status == 0
    wait(lambda: difference(picture(client, "<lora:twin:0.7>"), loose) == 0)


def test_an_entry_that_is_removed_is_unknown_to_the_next_request(
    client: httpx.Client, place: Place
) -> None:
    file = place.write(place.maker.folder / "brief.safetensors", 7)
    tag = import_here(place.home, "lora", str(file))
    wait(lambda: "brief" in names(client))
    assert generate(client, "<lora:brief:1>").status_code == 200
    assert run_here(place.home, "remove", tag).status == 0
    assert generate(client, "<lora:brief:1>").status_code == 400


def test_a_file_that_can_not_be_used_is_named_in_the_log(
    client: httpx.Client, server: Server, place: Place
) -> None:
    (place.loras / "page.safetensors").write_text("<html>moved</html>")
    (place.loras / "half.safetensors").write_bytes(
        place.write(place.maker.folder / "whole.safetensors", 8).read_bytes()[:-100]
    )
    for name, reason in (("page", "is a web page"), ("half", "is truncated")):
        wait(lambda name=name: f"LoRA {name}.safetensors is left out: {name}" in server.log)
        [line] = [line for line in server.log.splitlines() if f"LoRA {name}.safetensors" in line]
        assert reason in line
        refused = generate(client, f"<lora:{name}:1>")
        assert refused.status_code == 400
        assert "is there but can't be used with this model" in refused.json()["error"]["message"]
    assert "Traceback" not in server.log


def test_a_picture_carries_the_hash_of_the_file_that_its_request_saw(
    client: httpx.Client, place: Place
) -> None:
    path = place.write(place.loras / "hashed.safetensors", 9)
    wait(lambda: "hashed" in names(client))
    hashes = set()
    for seed in (9, 10):
        place.write(path, seed)
        image = Image.open(io.BytesIO(generate(client, "<lora:hashed:1>").content))
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:10] in image.info["parameters"]
        hashes.add(image.info["parameters"])
    assert len(hashes) == 2
