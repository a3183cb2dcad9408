"""No space left, on a real small file system, at every stage: one sentence, and nothing left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from forks import Forks
from lpw_sdxl.addon import fit
from lpw_sdxl.lora.targets import TargetModules
from lpw_sdxl.weights.component import Component
from tests.forge.lora import LoraOptions, write_lora
from web import File, WebServer

pytestmark = [pytest.mark.processes, pytest.mark.thorough]

RUNNER = Path(__file__).with_name("small_disk.py")
UNSHARE = ["unshare", "--mount", "--map-root-user"]


def _can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    mount = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Outcome:
    status: int
    left: list[str]
    filled: bool
    sentence: str


@pytest.fixture(scope="module")
def importer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    folder = tmp_path_factory.mktemp("importer")
    if not _can_mount(folder):
        pytest.skip("a file system can't be mounted here (no user namespaces)")
    forks = Forks(folder, RUNNER, UNSHARE)
    yield forks
    forks.close()


@pytest.fixture
def run_on_small_disk(importer: Forks, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LPW_SDXL_")}
    environment |= {"BENTOML_DO_NOT_TRACK": "True", "HF_HUB_OFFLINE": "1"}

    def run(megabytes: int, moment: str, *words: str) -> Outcome:
        done = importer.run((str(disk), str(megabytes), moment, *words), environment)
        assert done.status == 0, done.sentence
        lines = [line for line in done.sentence.splitlines() if line.startswith("model_import: ")]
        assert len(lines) == len(done.sentence.splitlines()) <= 1, done.sentence
        return Outcome(**json.loads(done.output.splitlines()[-1]), sentence="".join(lines))

    return run


def test_too_little_room_is_told_before_the_first_byte(run_on_small_disk, tiny_checkpoint: Path):
    outcome = run_on_small_disk(40, "-", "checkpoint", str(tiny_checkpoint))
    assert (outcome.status, outcome.left, outcome.filled) == (1, [], False)
    assert "This import needs 0.09 GB for the entry in " in outcome.sentence
    assert "0.04 GB are free there; make room, or set BENTOML_HOME" in outcome.sentence


def test_a_disk_that_fills_while_the_file_is_hashed_is_told(
    run_on_small_disk, tiny_checkpoint: Path
):
    outcome = run_on_small_disk(100, "hash", "checkpoint", str(tiny_checkpoint))
    assert (outcome.status, outcome.left, outcome.filled) == (1, [], True)
    assert "and 0.00 MB are free there; make room, or set BENTOML_HOME" in outcome.sentence


@pytest.mark.parametrize("moment", ["convert", "generate"])
def test_a_disk_that_fills_during_the_import_leaves_the_store_as_it_was(
    run_on_small_disk, tiny_checkpoint: Path, moment: str
):
    outcome = run_on_small_disk(100, moment, "checkpoint", str(tiny_checkpoint))
    assert (outcome.status, outcome.left, outcome.filled) == (1, [], True)
    assert " is full; what was written is removed and the model store is as it was" in (
        outcome.sentence
    )


def test_publication_needs_no_room(run_on_small_disk, tiny_checkpoint: Path):
    outcome = run_on_small_disk(100, "publish", "checkpoint", str(tiny_checkpoint))
    assert (outcome.status, outcome.sentence, outcome.filled) == (0, "", True)
    assert any(name.endswith("manifest.json") for name in outcome.left)


def test_the_demo_on_a_full_disk_is_told(run_on_small_disk):
    outcome = run_on_small_disk(20, "-", "demo")
    assert (outcome.status, outcome.left) == (1, [])
    assert "This import needs 0.11 GB for the entry" in outcome.sentence
    assert "set BENTOML_HOME" in outcome.sentence


def test_a_download_that_does_not_fit_is_told_before_its_first_byte(
    run_on_small_disk, tiny_checkpoint: Path
):
    with WebServer() as server:
        server.on("/tiny.safetensors", File(tiny_checkpoint.read_bytes()))
        url = server.url("/tiny.safetensors")
        outcome = run_on_small_disk(100, "-", "checkpoint", url)
    assert (outcome.status, outcome.left) == (1, [])
    assert "for the download in " in outcome.sentence
    assert "set LPW_SDXL_DOWNLOADS or BENTOML_HOME" in outcome.sentence


def test_a_disk_that_fills_during_the_download_is_told(run_on_small_disk, tiny_checkpoint: Path):
    with WebServer() as server:
        server.on("/tiny.safetensors", File(tiny_checkpoint.read_bytes()))
        url = server.url("/tiny.safetensors")
        outcome = run_on_small_disk(200, "download", "checkpoint", url)
    assert (outcome.status, outcome.left, outcome.filled) == (1, [], True)
    assert "is full; what had come was removed" in outcome.sentence


@pytest.fixture
def addon(
    request: pytest.FixtureRequest, targets: TargetModules, tmp_path: Path
) -> tuple[str, Path]:
    """A command and a file of SDXL's own size, which fits without a model in the store."""
    kind: str = request.param
    path = tmp_path / "made.safetensors"
    if kind == "lora":
        attention = {p: t for p, t in targets[Component.UNET].items() if "down_blocks.1" in p}
        few = {Component.UNET: attention, Component.TEXT_ENCODER: {}, Component.TEXT_ENCODER_2: {}}
        write_lora(path, few, LoraOptions(rank=16, is_attention_only=True))
    else:
        save_file({"clip_l": torch.ones(75, 768), "clip_g": torch.ones(75, 1280)}, path)
    return kind, path


@pytest.fixture(scope="module")
def targets() -> TargetModules:
    return fit.sdxl_targets()


@pytest.mark.parametrize("addon", ["lora", "embedding"], indirect=True)
def test_an_addon_without_room_is_refused_before_the_first_byte(run_on_small_disk, addon):
    kind, path = addon
    outcome = run_on_small_disk(20, "-", kind, str(path))
    assert (outcome.status, outcome.left, outcome.filled) == (1, [], False)
    assert "This import needs 0.07 GB for the entry in " in outcome.sentence
    assert "0.02 GB are free there; make room, or set BENTOML_HOME" in outcome.sentence


@pytest.mark.parametrize("addon", ["lora", "embedding"], indirect=True)
@pytest.mark.parametrize("moment", ["convert"])
def test_a_disk_that_fills_during_an_addons_import_leaves_the_store_as_it_was(
    run_on_small_disk, addon, moment: str
):
    kind, path = addon
    outcome = run_on_small_disk(100, moment, kind, str(path))
    assert (outcome.status, outcome.left, outcome.filled) == (1, [], True)
    assert " is full; what was written is removed and the model store is as it was" in (
        outcome.sentence
    )


@pytest.mark.parametrize("moment", ["-", "hash", "convert", "publish"])
def test_a_pair_is_whole_or_not_there(run_on_small_disk, tmp_path: Path, moment: str):
    files = []
    for width in (768, 1280):
        files.append(str(tmp_path / f"{width}.safetensors"))
        save_file({"<token>": torch.ones(75, width)}, files[-1])
    outcome = run_on_small_disk(20 if moment == "-" else 100, moment, "embedding", *files)
    is_whole = any(name.endswith("manifest.json") for name in outcome.left)
    assert (outcome.status, is_whole) == ((0, True) if moment == "publish" else (1, False))
    assert is_whole or outcome.left == []
    assert outcome.filled is (moment != "-")


@pytest.mark.parametrize("addon", ["lora", "embedding"], indirect=True)
def test_an_addons_publication_needs_no_room(run_on_small_disk, addon):
    kind, path = addon
    outcome = run_on_small_disk(100, "publish", kind, str(path))
    assert (outcome.status, outcome.sentence, outcome.filled) == (0, "", True)
    assert any(name.endswith("manifest.json") for name in outcome.left)


@pytest.mark.parametrize("addon", ["lora", "embedding"], indirect=True)
def test_a_disk_that_fills_during_an_addons_download_is_named(run_on_small_disk, addon):
    kind, path = addon
    with WebServer() as server:
        server.on("/made.safetensors", File(path.read_bytes(), wait_s=0.01))
        url = server.url("/made.safetensors")
        outcome = run_on_small_disk(100, "download", kind, url)
    assert (outcome.status, outcome.left, outcome.filled) == (1, [], True)
    assert "is full; what had come was removed" in outcome.sentence
