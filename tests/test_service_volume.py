"""A service of models on a volume: many workers of a read-only one, failures in a sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from addons import AddonMaker, flip_last_byte
from conftest import ROOT, Store, store_environment
from serving import Server, assert_an_end, assert_one_sentence, free_port, running, serve_to_its_end
from tests.forge.lora import LoraOptions

pytestmark = pytest.mark.processes

WORKERS = 3
READ_ONLY = 'mount --bind -o ro "$0" "$0" && exec "$@"'
UNSHARE = ["unshare", "--mount", "--map-root-user", "bash", "-c", READ_ONLY]


@pytest.fixture(scope="module")
def volume(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with the model and a LoRA for it."""
    home = tmp_path_factory.mktemp("volume")
    shutil.copytree(store.home / "models", home / "models")
    maker = AddonMaker(store.model_directory, home, {}, tmp_path_factory.mktemp("addons"))
    maker.lora("there", LoraOptions(seed=1))
    maker.import_written()
    return home / "models"


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(path): path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_mode, stat.st_mtime_ns) for path, stat in found.items()}


@pytest.fixture(scope="module")
def server(volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mount = [*UNSHARE, str(volume), "true"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode != 0
    ):
        pytest.skip("a folder can't be mounted here (no user namespaces)")
    home = tmp_path_factory.mktemp("home")
    environment = store_environment(home) | {
        "LPW_SDXL_STORE": str(volume),
        "LPW_SDXL_WORKERS": str(WORKERS),
    }
    port = free_port()
    serve = [sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl", "--port", str(port)]
    command = [*UNSHARE, str(volume), *serve, "--host", "127.0.0.1"]
    with running(command, port, ROOT, environment, home / "log") as server:
        deadline = time.monotonic() + 60
        while server.log.count("model loaded in") < WORKERS:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.1)
        yield server


@pytest.mark.thorough
def test_several_workers_start_at_once_from_a_read_only_volume(
    server: Server, store: Store, volume: Path
) -> None:
    before = contents(volume)
    told = httpx.post(f"{server.url}/info", json={}, timeout=60).json()
    assert told["model_tag"] == store.tag
    assert [lora["name"] for lora in told["loras"]] == ["there"]
    request = {"prompt": "a fox <lora:there:1>", "num_inference_steps": 2, "seed": 3}
    pictures = set()
    for _ in range(2 * WORKERS):  # each on a connection of its own, which any worker may take
        response = httpx.post(f"{server.url}/generate", json=request, timeout=120)
        assert response.status_code == 200, response.text
        pictures.add(response.content)
    assert len(pictures) == 1
    assert "Traceback" not in server.log
    assert contents(volume) == before


def damaged(volume: Path, folder: Path, store: Store) -> Path:
    """Copy the volume with one wrong byte."""
    copy = shutil.copytree(volume, folder)
    weights = copy / Path(*store.tag.split(":")) / "unet" / "diffusion_pytorch_model.safetensors"
    flip_last_byte(weights)
    return copy


@pytest.mark.parametrize("what", ["missing", "file", "empty", "half", "damaged", "two names"])
def test_a_volume_that_cannot_be_served_ends_the_start(
    store: Store, volume: Path, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "volume"
    fill = "`python model_import.py demo` or `python model_import.py checkpoint FILE`"
    match what:
        case "missing":
            parts = [f"names {folder}, which is not there", fill]
        case "file":
            folder.touch()
            parts = [f"{folder} is a file; a folder would be right"]
        case "empty":
            folder.mkdir()
            parts = [f"No model is in {folder}, which LPW_SDXL_STORE names; fill it with", fill]
        case "half":
            shutil.copytree(volume, folder)
            (folder / Path(*store.tag.split(":")) / "manifest.json").unlink()
            parts = [f"{store.tag} in {folder} has no manifest.json", "--name sdxl --force"]
        case "damaged":
            damaged(volume, folder, store)
            parts = [store.tag, "other bytes in unet/diffusion_pytorch_model.safetensors"]
        case "two names":
            for name in ("one", "two"):
                shutil.copytree(volume / "sdxl", folder / name)
            parts = ["has the models one, two and no sdxl:latest", "LPW_SDXL_MODEL"]
    environment = store_environment(tmp_path / "home") | {"LPW_SDXL_STORE": str(folder)}
    # Contents are read by the worker, while it loads them; all else is seen before it starts.
    check = assert_an_end if what == "damaged" else assert_one_sentence
    check(serve_to_its_end(environment), "lpw-sdxl: ", *parts)


def test_the_former_name_is_warned_of_once(volume: Path, tmp_path: Path) -> None:
    environment = store_environment(tmp_path) | {"LPW_SDXL_ADDONS": str(volume)}
    script = "import service; service.LpwSdxl.inner.verify_model()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout + done.stderr).count("LPW_SDXL_ADDONS is called LPW_SDXL_STORE now") == 1


def test_the_packages_own_command_reads_the_volume_from_anywhere(
    volume: Path, tmp_path: Path, store: Store
) -> None:
    environment = store_environment(tmp_path) | {"LPW_SDXL_STORE": str(volume)}
    done = subprocess.run(
        [sys.executable, "-m", "lpw_sdxl", "list", "model"],
        cwd=os.sep,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{store.tag}  ")
