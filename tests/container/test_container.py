"""The image as what it is: built from a bento alone, and run without a network."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from addons import AddonMaker
from conftest import ROOT, run_import, store_environment
from container_images import build_bento, containerize, containerize_in_layers, layer_sizes, search
from containers import Container, podman, running
from tests.forge.lora import LoraOptions

# Variables in which people keep secrets while they build.
SECRET_VARIABLES = (
    "CIVITAI_TOKEN", "LPW_SDXL_TOKENS", "LPW_SDXL_TOKEN", "HF_TOKEN", "BENTO_CLOUD_API_KEY",
    "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN",
)  # fmt: skip
NAMES = ("plain", "layers", "new")
PLAIN, LAYERED, CHANGED = (f"localhost/lpw-sdxl-test:{name}" for name in NAMES)
logger = logging.getLogger(__name__)

GRACE_SECONDS = 60
KILL_WORKER = """
import os, pathlib
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"-m\\0_bentoml_impl.worker.service" in (process / "cmdline").read_bytes():
        os.kill(int(process.name), 9)
"""
CLIENTS = 24

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def canary() -> str:
    return f"canary{secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, canary: str) -> dict[str, str]:
    """What the bento and the images are built with: a secret in every variable for one."""
    home = tmp_path_factory.mktemp("bentoml")
    return store_environment(home) | {name: f"{canary}-{name}" for name in SECRET_VARIABLES}


@pytest.fixture(scope="module")
def model_tag(environment: dict[str, str]) -> str:
    return run_import(["demo"], environment)


@pytest.fixture(scope="module")
def arguments(
    model_tag: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Of the build: the model, and a LoRA that travels with it."""
    home = Path(environment["BENTOML_HOME"])
    model = home / "models" / Path(*model_tag.split(":"))
    maker = AddonMaker(model, home, environment, tmp_path_factory.mktemp("addons"))
    maker.lora("inside", LoraOptions(seed=1))
    maker.import_written()
    return {"model": model_tag, "addons": "lora-inside"}


@pytest.fixture(scope="module")
def bento(arguments: dict[str, str], environment: dict[str, str], canary: str) -> Iterator[str]:
    """A bento, built while a secret lies in the checkout as well."""
    secret = ROOT / ".env"
    assert not secret.exists(), "this test writes a .env of its own"
    secret.write_text(f"CIVITAI_TOKEN={canary}-file\n")
    try:
        yield build_bento(arguments, environment)
    finally:
        secret.unlink()


@pytest.fixture(scope="module")
def image(bento: str, environment: dict[str, str]) -> Iterator[str]:
    containerize(bento, PLAIN, environment)
    yield PLAIN
    podman("image", "rm", "--force", PLAIN)


@pytest.fixture(scope="module")
def layered_image(bento: str, environment: dict[str, str]) -> Iterator[str]:
    containerize_in_layers(bento, LAYERED, environment)
    yield LAYERED
    podman("image", "rm", "--force", LAYERED)


@pytest.fixture(scope="module")
def changed_image(
    layered_image: str, arguments: dict[str, str], environment: dict[str, str]
) -> Iterator[str]:
    """The image of a checkout in which one line differs."""
    file = ROOT / "src" / "lpw_sdxl" / "api" / "disconnect.py"
    text = file.read_bytes()
    try:
        file.write_bytes(text + b"# one more line\n")
        bento = build_bento(arguments, environment)
    finally:
        file.write_bytes(text)
    containerize_in_layers(bento, CHANGED, environment)
    yield CHANGED
    podman("image", "rm", "--force", CHANGED)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    with running(image) as started:
        seconds = started.call("wait_until_ready")
        logger.info("ready %.1f s after its start", seconds)
        yield started


def test_it_is_an_ordinary_user_without_a_network_or_a_disk_to_write(container: Container) -> None:
    assert container.run("id", "-u").strip() == "1034"
    interfaces = container.run("cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    for folder in ("/home/bentoml", "/home/bentoml/bento", "/var/tmp", "/app"):
        with pytest.raises(subprocess.CalledProcessError):
            container.run("touch", f"{folder}/file")


def test_bentoml_is_told_what_it_is_told_in_a_checkout(container: Container) -> None:
    variables = dict(line.split("=", 1) for line in container.run("env").splitlines())
    assert variables["BENTOML_DO_NOT_TRACK"] == "True"
    assert "user config override from path: /home/bentoml/bento/src/configuration.yaml" in (
        container.log
    )
    metrics = container.call("metrics")
    assert 'le="600.0"' in metrics  # a bucket of configuration.yaml, and none of BentoML's


def test_it_serves_what_it_was_built_with(container: Container, model_tag: str) -> None:
    told = container.call("info")
    assert told["model_tag"] == model_tag
    assert [lora["name"] for lora in told["loras"]] == ["inside"]


def test_bentomls_client_gets_pictures_that_a_restart_does_not_change(container: Container) -> None:
    request = {"prompt": "a lighthouse <lora:inside:0.5>", "seed": 7}
    picture = container.call("generate", **request)
    assert picture["size"] == [128, 128]
    assert "Seed: 7" in picture["parameters"]

    podman("--runtime", "runc", "kill", "--signal", "KILL", container.name)
    podman("wait", container.name)
    assert not container.is_running
    podman("--runtime", "runc", "start", container.name)
    container.call("wait_until_ready")
    assert container.call("generate", **request) == picture


def test_a_container_whose_worker_dies_ends_for_its_orchestrator_to_see(image: str) -> None:
    with running(image) as container:
        container.call("wait_until_ready")
        container.run("python3", "-c", KILL_WORKER)
        podman("wait", container.name)
        assert int(container.inspect(".State.ExitCode")) != 0


def test_sigterm_under_load_loses_no_request_and_ends_within_the_grace(image: str) -> None:
    with running(image, environment={"LPW_SDXL_LOG_FORMAT": "json"}) as container:
        container.call("wait_until_ready")
        with container.calling("load", clients=CLIENTS, steps=10) as clients:
            wait_for_pictures(container, CLIENTS)
            started = time.monotonic()
            podman("--runtime", "runc", "stop", "--time", str(GRACE_SECONDS), container.name)
            seconds = time.monotonic() - started
            answers = json.loads(clients.communicate(timeout=60)[0])
        logger.info("SIGTERM, %d clients: ended after %.1f s; %s", CLIENTS, seconds, answers)
        assert set(answers) == {"200", "ConnectError"}, container.log
        assert answers["200"] >= CLIENTS
        assert answers["ConnectError"] == CLIENTS
        assert seconds < GRACE_SECONDS
        assert container.inspect(".State.ExitCode") == "0"

        lines = [json.loads(line) for line in container.log.splitlines()]
        assert {"time", "level", "logger", "process", "message"} <= set.intersection(
            *(set(line) for line in lines)
        )


def wait_for_pictures(container: Container, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if container.call("pictures") >= count:
            return
    raise AssertionError(f"there were never {count} pictures:\n{container.log}")


def volume(folder: Path) -> str:
    return f"--volume={folder}:/models:ro"


STORE = {"LPW_SDXL_STORE": "/models"}


def test_a_model_may_be_mounted(
    empty_image: str, environment: dict[str, str], model_tag: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(Path(environment["BENTOML_HOME"]) / "models", tmp_path / "models")
    with running(empty_image, volume(copy), environment=STORE) as container:
        container.call("wait_until_ready")
        assert container.call("info")["model_tag"] == model_tag
        assert container.call("generate", prompt="a fox", seed=3)["size"] == [128, 128]


def test_a_mounted_model_that_is_damaged_is_refused(
    empty_image: str, environment: dict[str, str], model_tag: str, tmp_path: Path
) -> None:
    copy = shutil.copytree(Path(environment["BENTOML_HOME"]) / "models", tmp_path / "models")
    weights = copy / Path(*model_tag.split(":")) / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with running(empty_image, volume(copy), environment=STORE) as container:
        podman("wait", container.name)
        assert container.inspect(".State.ExitCode") == "1"
        assert "diffusion_pytorch_model.safetensors" in container.log.splitlines()[-1]


def test_an_image_without_a_model_says_so(empty_image: str) -> None:
    with running(empty_image) as container:
        podman("wait", container.name)
        assert container.inspect(".State.ExitCode") == "1"
        assert "sdxl:latest" in container.log.splitlines()[-1]


def test_no_secret_of_the_build_is_in_the_image(image: str, canary: str, model_tag: str) -> None:
    known = {"class LpwSdxl", "_class_name", "USER bentoml", model_tag}  # else it saw nothing
    assert search(image, {canary, *known}) == known
    history = podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    assert canary not in history


def test_changed_code_leaves_the_layers_of_model_and_packages(
    layered_image: str, changed_image: str
) -> None:
    kept, pushed = layer_sizes(changed_image, layered_image)
    logger.info("bytes of layers, kept: %s; pushed: %s", kept, pushed)
    assert sum(pushed) < 5_000_000 < sum(kept)


def test_the_layered_image_serves_as_the_plain_one(
    changed_image: str, container: Container, model_tag: str
) -> None:
    picture = container.call("generate", prompt="a fox", seed=3)
    with running(changed_image) as other:
        other.call("wait_until_ready")
        assert other.call("info")["model_tag"] == model_tag
        assert other.call("generate", prompt="a fox", seed=3) == picture
