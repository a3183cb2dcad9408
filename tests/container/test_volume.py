"""An image and a volume: filled by another user or by the image itself, and served read-only."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import ROOT
from containers import run_to_its_end, running
from web import File, WebServer, civitai_record, json_answer

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

STORE = {"LPW_SDXL_STORE": "/volume/store"}
IMAGE_USER = 1034
VERSION_ID = 456
DRAWING = "a large red circle on a white background, center"


def mounted(volume: Path, *, how: str = "ro") -> str:
    return f"--volume={volume}:/volume:{how}"


def contents(volume: Path) -> dict[str, tuple[int, int]]:
    """Every file, with its mode and the time of its last change."""
    found = {str(path): path.stat() for path in volume.rglob("*")}
    return {path: (stat.st_mode, stat.st_mtime_ns) for path, stat in found.items()}


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence that a start failed with."""
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def roots_volume(empty_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume that root filled, with a umask that leaves others nothing."""
    volume = tmp_path_factory.mktemp("roots") / "volume"
    volume.mkdir(mode=0o755)
    fill = "umask 077 && python -m lpw_sdxl demo"
    done = run_to_its_end(
        empty_image,
        *("sh", "-c", fill),
        options=["--user=0", mounted(volume, how="rw")],
        environment=STORE,
    )
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_uid == 0 for path in volume.rglob("*"))
    return volume


def test_three_services_start_at_once_from_a_volume_of_roots(
    empty_image: str, roots_volume: Path
) -> None:
    before = contents(roots_volume)
    with ExitStack() as stack:
        containers = [
            stack.enter_context(running(empty_image, mounted(roots_volume), environment=STORE))
            for _ in range(3)
        ]
        pictures = {container.draw(DRAWING) for container in containers}
        users = {container.run("id", "-u").strip() for container in containers}
    assert users == {str(IMAGE_USER)}
    assert len(pictures) == 1
    assert contents(roots_volume) == before


def test_a_volume_that_is_closed_to_the_images_user_is_one_sentence(
    empty_image: str, roots_volume: Path
) -> None:
    store = roots_volume / "store"
    store.chmod(0o700)
    try:
        done = run_to_its_end(empty_image, options=[mounted(roots_volume)], environment=STORE)
    finally:
        store.chmod(0o755)
    assert said(done) == (
        "lpw-sdxl: LPW_SDXL_STORE names /volume/store, and /volume/store is closed to uid "
        f"{IMAGE_USER} (drwx------, of uid 0); `chmod -R a+rX /volume/store` by its owner would be "
        "right"
    )


def test_a_pod_fills_its_own_volume_with_what_the_errors_say(
    empty_image: str, tmp_path: Path
) -> None:
    """From an image and an empty volume to a picture: each step is what the last error names."""
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, IMAGE_USER, IMAGE_USER)
    writable = {"options": [mounted(volume, how="rw")]}

    sentence = said(run_to_its_end(empty_image))
    assert "name a folder on a volume in LPW_SDXL_STORE" in sentence
    sentence = said(run_to_its_end(empty_image, options=[mounted(volume)], environment=STORE))
    assert "names /volume/store, which is not there" in sentence
    assert "with the volume mounted there for writing" in sentence
    (command,) = re.findall(r"`(python -m lpw_sdxl checkpoint civitai:VERSION_ID)`", sentence)
    words = command.replace("VERSION_ID", str(VERSION_ID)).split()

    assert "LPW_SDXL_STORE is not set" in said(run_to_its_end(empty_image, *words, **writable))
    unwritable = run_to_its_end(empty_image, *words, options=[mounted(volume)], environment=STORE)
    assert "a volume that is mounted for writing would be right" in said(unwritable)
    with stand_in() as civitai:
        environment = STORE | {"LPW_SDXL_CIVITAI_URL": civitai.url()}
        done = run_to_its_end(
            empty_image, *words, environment=environment, network="host", **writable
        )
    assert done.returncode == 0, done.stderr
    tag = done.stdout.splitlines()[-1]

    with running(empty_image, mounted(volume), environment=STORE) as container:
        container.draw(DRAWING)
        assert container.call("info")["model_tag"] == tag


def stand_in() -> WebServer:
    """A server that answers as Civitai does, and has the demo model as a version of one."""
    content = (ROOT / "demo" / "lpw-sdxl-demo.safetensors").read_bytes()
    server = WebServer()
    file = {
        "name": "demo.safetensors",
        "sizeKB": len(content) / 1024,
        "hashes": {"SHA256": hashlib.sha256(content).hexdigest().upper()},
    }
    record = civitai_record(VERSION_ID, server.url("/file"), file=file)
    server.on(f"/api/v1/model-versions/{VERSION_ID}", json_answer(record))
    server.on("/file", File(content))
    return server
