"""Our image for RunPod: built from the repository, and served as a queue, over HTTP and in pods."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from container_images import PACKAGES, layer_sizes, search
from containers import podman, run_to_its_end, running
from web import Answer, File, Keyed, WebServer, civitai_record, json_answer

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

logger = logging.getLogger(__name__)

DEMO = ROOT / "demo" / "lpw-sdxl-demo.safetensors"
LORA = ROOT / "demo" / "addons" / "demo-pastel.safetensors"
MODEL_ID, LORA_ID = 456, 457
WITH_MODEL, CHANGED, EMPTY = (
    f"localhost/lpw-sdxl-test:runpod-{name}" for name in ("model", "changed", "empty")
)
BUILD_SECONDS = 1500
QUICK_S = 1.5  # of a ping; where a SYN is ignored at the end, it is repeated after a second
AS_ROOT = ()  # RunPod's containers are root's, and may write anywhere
LOCAL_API = ["queue", "--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", "8000"]
SMALL = {"width": 64, "height": 64, "steps": 3, "seed": 3}
DRAWING = "a large red circle on a white background, center"


@pytest.fixture(scope="module")
def key() -> str:
    return f"key{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def civitai(key: str) -> Iterator[WebServer]:
    """A server that answers as Civitai does, to those with the key."""
    with WebServer() as server:
        add_version(server, key, MODEL_ID, DEMO)
        add_version(server, key, LORA_ID, LORA)
        yield server


def add_version(server: WebServer, key: str, version_id: int, path: Path) -> None:
    content = path.read_bytes()
    file = {
        "name": path.name,
        "sizeKB": len(content) / 1024,
        "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()},
    }
    record = civitai_record(version_id, server.url(f"/file/{version_id}"), file=file)
    answers: dict[str, Answer] = {
        f"/api/v1/model-versions/{version_id}": json_answer(record),
        f"/file/{version_id}": File(content),
    }
    for address, answer in answers.items():
        server.on(address, Keyed(key, answer))


def build(image: str, *options: str, arguments: Mapping[str, str]) -> str:
    """Build the Dockerfile as its first lines say; return the log."""
    words = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    if PACKAGES.startswith("/"):
        words += [f"--volume={PACKAGES}:{PACKAGES}:ro", f"--build-arg=PIP_FIND_LINKS={PACKAGES}"]
    command = ["podman", "build", "-f", "deploy/runpod/Dockerfile", "-t", image, "--network=host"]
    done = subprocess.run(
        [*command, "--layers", *words, *options, "."],
        cwd=ROOT,
        env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


@pytest.fixture(scope="module")
def build_arguments(civitai: WebServer) -> dict[str, str]:
    return {
        "CHECKPOINT": f"civitai:{MODEL_ID}",
        "LORAS": f"civitai:{LORA_ID}",
        "LPW_SDXL_CIVITAI_URL": civitai.url(),
    }


@pytest.fixture(scope="module")
def secret(key: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option that mounts the key while the image is built."""
    file = tmp_path_factory.mktemp("secret") / "key"
    file.write_text(key)
    return f"--secret=id=CIVITAI_TOKEN,src={file}"


@pytest.fixture(scope="module")
def build_log(build_arguments: dict[str, str], secret: str) -> Iterator[str]:
    yield build(WITH_MODEL, secret, arguments=build_arguments)
    podman("image", "rm", "--force", WITH_MODEL)


@pytest.fixture(scope="module")
def image(build_log: str) -> str:
    assert build_log
    return WITH_MODEL


@pytest.fixture(scope="module")
def empty_image() -> Iterator[str]:
    build(EMPTY, arguments={})
    yield EMPTY
    podman("image", "rm", "--force", EMPTY)


def test_the_key_is_in_no_layer_history_or_log(image: str, build_log: str, key: str) -> None:
    known = {"class LpwSdxl", "deploy.runpod.start", f"civitai:{MODEL_ID}"}  # else it saw nothing
    assert search(image, {key, *known}) == known
    history = podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    assert key not in history
    assert "Imported and verified." in build_log
    assert key not in build_log


def test_changed_code_leaves_the_layers_of_model_and_packages(
    image: str, build_arguments: dict[str, str], secret: str
) -> None:
    file = ROOT / "src" / "lpw_sdxl" / "settings.py"  # which the import has, too
    text = file.read_bytes()
    try:
        file.write_bytes(text + b"# one more line\n")
        build(CHANGED, secret, arguments=build_arguments)
    finally:
        file.write_bytes(text)
    try:
        kept, pushed = layer_sizes(CHANGED, image)
        logger.info("bytes of layers, kept: %s; pushed: %s", kept, pushed)
        # Kept are the packages, the demo model's file and all weights; not the import's date.
        weights = DEMO.stat().st_size
        assert sum(kept) > 2 * weights
        assert max(pushed) < 5_000_000 < weights
        assert sum(pushed) < 15_000_000
    finally:
        podman("image", "rm", "--force", CHANGED)


def test_the_local_server_of_runpods_package_does_eight_jobs_at_once(image: str) -> None:
    right = [{"prompt": DRAWING, "loras": ["demo-pastel"], **SMALL, "seed": n} for n in range(4)]
    wrong = [
        {"prompt": DRAWING, "steps": 0},
        {"prompt": DRAWING, "sampler_name": "none such"},
        {"prompt": DRAWING, "loras": ["none such"]},
        {"negative_prompt": "x"},
    ]
    with running(image, limits=AS_ROOT, command=LOCAL_API) as container:
        answers = container.call("run_jobs", inputs=[*right, *wrong], port=8000)
        log = container.log
    assert [answer["status"] for answer in answers] == ["COMPLETED"] * 4 + ["FAILED"] * 4
    assert [answer["output"]["images"][0]["seed"] for answer in answers[:4]] == [0, 1, 2, 3]
    fields = [json.loads(answer["error"])["field"] for answer in answers[4:]]
    assert fields == ["steps", "sampler_name", "loras.0.name", "prompt"]
    assert DRAWING not in log


def test_the_test_input_in_the_image_draws(image: str) -> None:
    done = run_to_its_end(image, "queue", limits=AS_ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed successfully" in done.stdout


def test_a_pod_of_the_same_image_serves_http(image: str) -> None:
    with running(image, limits=AS_ROOT) as container:
        pixels = container.draw(DRAWING)
        told = container.call("info")
        assert told["model_tag"].startswith("sdxl:")
        assert [lora["name"] for lora in told["loras"]] == ["demo-pastel"]
    with running(image, limits=AS_ROOT, command=["http"]) as container:
        assert container.draw(DRAWING) == pixels


def test_three_workers_of_an_old_volume_start_at_once_and_import_its_checkpoint_once(
    empty_image: str, tmp_path: Path
) -> None:
    volume = old_volume(tmp_path, {"Jib Mix.safetensors": DEMO})
    mounted = f"--volume={volume}:/runpod-volume"
    with ExitStack() as stack:
        containers = [
            stack.enter_context(running(empty_image, mounted, limits=AS_ROOT)) for _ in range(3)
        ]
        assert len({container.draw(DRAWING) for container in containers}) == 1
        logs = [container.log for container in containers]
        told = containers[0].call("info")
    assert sum("Imported and verified." in log for log in logs) == 1
    assert told["model_tag"].startswith("jib-mix:")
    assert [lora["name"] for lora in told["loras"]] == ["demo-pastel"]
    assert not (volume / "lpw-sdxl" / ".start").exists()

    with running(empty_image, mounted, limits=AS_ROOT) as container:
        container.draw(DRAWING)
        assert "Imported" not in container.log


def test_a_volume_with_several_checkpoints_says_their_names(
    empty_image: str, tmp_path: Path
) -> None:
    volume = old_volume(tmp_path, {"one.safetensors": DEMO, "two.safetensors": DEMO})
    mounted = f"--volume={volume}:/workspace"
    done = run_to_its_end(empty_image, options=[mounted], limits=AS_ROOT)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "lpw-sdxl: /workspace has the checkpoints one, two; one of these names in LPW_SDXL_MODEL"
        " would be right"
    )
    named = {"LPW_SDXL_MODEL": "two"}
    with running(empty_image, mounted, limits=AS_ROOT, environment=named) as container:
        container.draw(DRAWING)
        assert container.call("info")["model_tag"].startswith("two:")


def test_an_image_without_a_model_or_a_volume_says_what_would_be_right(empty_image: str) -> None:
    done = run_to_its_end(empty_image, limits=AS_ROOT)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "there is no volume at /runpod-volume or /workspace" in line


BALANCED = {"PORT": "8080", "LPW_SDXL_DRAIN_S": "2"}
DEADLY = "the thread ends here"  # to breakable_service.py


def test_a_load_balancers_pings_are_answered_from_the_start_to_the_end_of_a_drain(
    image: str,
) -> None:
    with running(image, limits=AS_ROOT, environment=BALANCED) as container:
        with container.calling("ping_to_the_end", port=8080) as pinging:
            container.call("wait_for_ping", port=8080)
            podman("--runtime", "runc", "stop", "--time", "30", container.name)
            pings = json.loads(pinging.communicate(timeout=120)[0])
        assert container.inspect(".State.ExitCode") == "0"
    assert statuses(pings) == [204, 200, 503]
    check_quick(pings)


def test_a_load_balancers_pings_are_answered_through_the_death_of_an_engine(image: str) -> None:
    file = ROOT / "tests" / "breakable_service.py"
    serve = ["python", "-m", "bentoml", "serve", "breakable_service:LpwSdxl", "--port", "8080"]
    mounted = f"--volume={file}:/app/{file.name}:ro"
    with running(image, mounted, limits=AS_ROOT, environment=BALANCED, command=serve) as container:
        with container.calling("ping_to_the_end", port=8080) as pinging:
            container.call("wait_for_ping", port=8080)
            assert container.call("break_engine", port=8080, prompt=DEADLY) == 503
            pings = json.loads(pinging.communicate(timeout=120)[0])
        podman("wait", container.name)
        assert container.inspect(".State.ExitCode") == "1"  # for RunPod to start another
    assert statuses(pings) == [204, 200, 503]
    check_quick(pings)


def statuses(pings: list[list[Any]]) -> list[int]:
    """Every status once for each time that it began, errors left out."""
    found = [outcome for _, _, outcome in pings if isinstance(outcome, int)]
    return [one for one, before in zip(found, [None, *found[:-1]], strict=True) if one != before]


def check_quick(pings: list[list[Any]]) -> None:
    """Check that from the first answer to the last none is refused or hangs, and log the times."""
    answered = [index for index, ping in enumerate(pings) if isinstance(ping[2], int)]
    between = pings[answered[0] : answered[-1] + 1]
    times = sorted(took_s for _, took_s, _ in between)
    opened_s = sum(pings[answered[0]][:2])
    logger.info(
        "open after %.2f s; %d pings, median %.4f s, longest %.2f s",
        opened_s, len(between), times[len(times) // 2], times[-1],
    )  # fmt: skip
    assert all(isinstance(outcome, int) for _, _, outcome in between)
    # The first ones may wait for the imports behind the open port.
    assert [took_s for at_s, took_s, _ in between if at_s > opened_s and took_s > QUICK_S] == []
    assert {outcome for _, _, outcome in pings if not isinstance(outcome, int)} <= {
        "ConnectionRefusedError",
        "ConnectionResetError",
    }


def old_volume(folder: Path, checkpoints: Mapping[str, Path]) -> Path:
    """A volume as an old setup has it: checkpoints in one folder, LoRAs in another."""
    volume = folder / "volume"
    for name, source in {
        **{f"models/checkpoints/{name}": path for name, path in checkpoints.items()},
        "loras/demo-pastel.safetensors": LORA,
    }.items():
        (volume / name).parent.mkdir(parents=True, exist_ok=True)
        (volume / name).write_bytes(source.read_bytes())
    return volume
