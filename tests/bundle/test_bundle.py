"""The bento as what it is: built, then served where only its own requirements are installed."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from addons import AddonFile, AddonMaker
from conftest import ROOT, run_import, store_environment
from serving import serving
from tests.forge.lora import LoraOptions

ADDONS = "lora-inside,embedding-within"

pytestmark = [pytest.mark.bundle, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    return store_environment(home)


@pytest.fixture(scope="module")
def built_tag(environment: dict[str, str]) -> str:
    return run_import(["demo"], environment)


@pytest.fixture(scope="module")
def addons(
    built_tag: str,
    home: Path,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AddonMaker:
    """Three add-ons, of which the bento names all but `left`."""
    model = home / "models" / Path(*built_tag.split(":"))
    maker = AddonMaker(model, home, environment, tmp_path_factory.mktemp("addons"))
    maker.lora("inside", LoraOptions(seed=1))
    maker.lora("left", LoraOptions(seed=2))
    maker.embedding("within", 2, seed=3)
    maker.import_written()
    return maker


@pytest.fixture(scope="module")
def inside(addons: AddonMaker) -> AddonFile:
    return addons.made["inside"]


@pytest.fixture(scope="module")
def within(addons: AddonMaker) -> AddonFile:
    return addons.made["within"]


@pytest.fixture(scope="module")
def bento(
    environment: dict[str, str], built_tag: str, addons: AddonMaker, home: Path
) -> Iterator[Path]:
    """What `make bundle` builds with two add-ons, and a secret lying in the checkout."""
    secret = ROOT / ".env"
    assert not secret.exists(), "this test writes a .env of its own"
    secret.write_text("CIVITAI_TOKEN=canary\n")
    try:
        subprocess.run(
            ["make", "bundle", f"ADDONS={ADDONS}"],
            cwd=ROOT,
            env=environment,
            check=True,
            timeout=600,
        )
    finally:
        secret.unlink()
    versions = [path for path in (home / "bentos" / "lpw_sdxl").iterdir() if path.is_dir()]
    assert len(versions) == 1
    return versions[0]


@pytest.fixture(scope="module")
def newer_tag(
    bento: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A model for the same add-ons, imported after the bento was built: the demo's, untrained."""
    file = tmp_path_factory.mktemp("newer") / "newer.safetensors"
    make = (
        "import sys; from pathlib import Path; from demo.export import write_checkpoint;"
        "from demo.networks import make_networks; from demo.words import Vocabulary;"
        "write_checkpoint(Path(sys.argv[1]), make_networks(Vocabulary(), 9), 'untrained')"
    )
    subprocess.run([sys.executable, "-c", make, str(file)], cwd=ROOT, check=True, timeout=120)
    return run_import(["checkpoint", str(file), "--dtype", "fp32"], environment)


@pytest.fixture(scope="module")
def own_python(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the bento's requirements and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    requirements = bento / "env" / "python" / "requirements.txt"
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--no-cache-dir", "-r", str(requirements)],
        check=True,
        timeout=1200,
    )
    return python


@pytest.fixture(scope="module")
def newer(bento: Path, inside: AddonFile, addons: AddonMaker) -> AddonFile:
    """Another file under the name of the bento's LoRA, imported after the bento was built."""
    addons.lora("inside", LoraOptions(seed=9))
    addons.import_written()
    return addons.made["inside"]


def served_addons(url: str) -> dict[str, str]:
    """Hashes by name."""
    told = info(url)
    return {one["name"]: one["sha256"] for kind in ("loras", "embeddings") for one in told[kind]}


def generate(url: str, prompt: str) -> httpx.Response:
    request = {"prompt": prompt, "num_inference_steps": 3}
    return httpx.post(f"{url}/generate", json=request, timeout=120)


def info(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(f"{url}/info", json={}, timeout=60).json()
    return answer


def test_the_bento_holds_what_it_needs_and_nothing_else(bento: Path) -> None:
    files = {path.relative_to(bento).as_posix() for path in bento.rglob("*") if path.is_file()}
    ours = {name.split("/")[1] for name in files if name.startswith("src/")}
    assert {"service.py", "configuration.yaml", "lpw_sdxl"} <= ours
    assert "src/lpw_sdxl/checkpoint/assets/clip_merges.txt" in files
    assert "src/lpw_sdxl/checkpoint/assets/configs/unet.json" in files
    for name in files:
        parts = name.split("/")
        assert ".env" not in parts
        assert "tests" not in parts
        assert not any(part.endswith(".egg-info") or part == "__pycache__" for part in parts), name
    for path in bento.rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000:
            assert b"canary" not in path.read_bytes()


def test_the_bento_names_what_it_was_built_with(
    bento: Path, built_tag: str, inside: AddonFile, within: AddonFile
) -> None:
    description = yaml.safe_load((bento / "bento.yaml").read_text(encoding="utf-8"))
    (service,) = description["services"]
    tags = [model["tag"] for model in service["models"]]
    assert tags == [built_tag, inside.tag, within.tag]
    assert description["args"] == {"model": built_tag, "addons": ADDONS}


def test_it_serves_its_own_model_and_addons_from_its_own_environment(
    bento: Path,
    built_tag: str,
    inside: AddonFile,
    within: AddonFile,
    newer: AddonFile,
    newer_tag: str,
    own_python: Path,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    assert newer_tag != built_tag
    assert newer.sha256 != inside.sha256
    listed = subprocess.run(
        [str(own_python), "-m", "pip", "list"], capture_output=True, text=True, check=True
    ).stdout
    assert "lpw" not in listed.lower()
    environment = environment | {
        "BENTOML_CONFIG": str(bento / "src" / "configuration.yaml"),
        "PATH": f"{own_python.parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
    }
    with serving(
        f"lpw_sdxl:{bento.name}",
        folder=tmp_path,
        environment=environment,
        log_file=tmp_path / "log",
        python=own_python,
    ) as server:
        assert info(server.url)["model_tag"] == built_tag
        assert served_addons(server.url) == {"inside": inside.sha256, "within": within.sha256}
        response = generate(server.url, "a fox within snow <lora:inside:0.5>")
        assert response.status_code == 200, server.log
        assert generate(server.url, "a fox <lora:left:1>").status_code == 400
        with Image.open(io.BytesIO(response.content)) as image:
            assert image.size == (128, 128)


def test_settings_override_the_bentos_own_model_and_add_to_its_addons(
    bento: Path,
    newer_tag: str,
    addons: AddonMaker,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    left = addons.made["left"]
    shutil.copytree(left.entry, tmp_path / "mounted" / Path(*left.tag.split(":")))
    settings = {"LPW_SDXL_MODEL": newer_tag, "LPW_SDXL_STORE": str(tmp_path / "mounted")}
    with serving(
        f"lpw_sdxl:{bento.name}",
        folder=tmp_path,
        environment=environment | settings,
        log_file=tmp_path / "log",
    ) as server:
        assert info(server.url)["model_tag"] == newer_tag
        assert set(served_addons(server.url)) == {"inside", "within", "left"}
        assert generate(server.url, "a fox <lora:left:1>").status_code == 200


def test_its_import_fills_a_volume_as_its_errors_say(
    bento: Path, own_python: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """From its own environment, anywhere on a machine."""
    environment = environment | {"LPW_SDXL_STORE": str(tmp_path / "volume")}
    environment |= {"PATH": f"{own_python.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    environment |= {"BENTOML_HOME": str(tmp_path / "home")}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    command = f"PYTHONPATH={shlex.quote(str(bento / 'src'))} python -m lpw_sdxl"
    failed = run(f"{command} verify sdxl")
    assert failed.returncode == 1
    assert f"import one with `{command} demo`" in failed.stderr
    done = run(f"{command} demo")
    assert done.returncode == 0, done.stderr
    tag = done.stdout.splitlines()[-1]
    assert (tmp_path / "volume" / Path(*tag.split(":")) / "manifest.json").is_file()


def test_a_plain_build_keeps_its_model_too(
    newer_tag: str, built_tag: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """`bentoml build` without --arg, when `latest` has moved on since: the tag is the bento's."""
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    bento_tag = done.stdout.strip().splitlines()[-1].removeprefix("__tag__:")
    run_import(["demo", "--force"], environment)
    latest = run_import(["verify", "sdxl:latest"], environment)
    assert latest == built_tag != newer_tag
    with serving(
        bento_tag, folder=tmp_path, environment=environment, log_file=tmp_path / "log"
    ) as server:
        assert info(server.url)["model_tag"] == newer_tag
        assert served_addons(server.url) == {}  # none was named, whatever is in the store


def test_it_serves_as_an_image_lays_it_out(
    bento: Path,
    built_tag: str,
    inside: AddonFile,
    within: AddonFile,
    environment: dict[str, str],
    home: Path,
    tmp_path: Path,
) -> None:
    """In an image all entries lie inside the bento, and BentoML's home has no other."""
    folder = tmp_path / "bento"
    shutil.copytree(bento, folder)
    for tag in (built_tag, inside.tag, within.tag):
        name, version = tag.split(":")
        shutil.copytree(home / "models" / name / version, folder / "models" / name / version)
        (folder / "models" / name / "latest").write_text(version)
    with serving(
        str(folder),
        folder=tmp_path,
        environment=environment | {"BENTOML_HOME": str(tmp_path)},
        log_file=tmp_path / "log",
    ) as server:
        assert info(server.url)["model_tag"] == built_tag
        assert served_addons(server.url) == {"inside": inside.sha256, "within": within.sha256}
