"""The bento as what it is: built, then served where only its own requirements are installed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image

from conftest import ROOT, run_import, store_environment
from serving import serving

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
def bento(environment: dict[str, str], built_tag: str, home: Path) -> Iterator[Path]:
    """What `make bundle` builds, with a secret lying in the checkout."""
    secret = ROOT / ".env"
    assert not secret.exists(), "this test writes a .env of its own"
    secret.write_text("CIVITAI_TOKEN=canary\n")
    try:
        subprocess.run(["make", "bundle"], cwd=ROOT, env=environment, check=True, timeout=600)
    finally:
        secret.unlink()
    versions = [path for path in (home / "bentos" / "lpw_sdxl").iterdir() if path.is_dir()]
    assert len(versions) == 1
    return versions[0]


@pytest.fixture(scope="module")
def newer_tag(
    bento: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A model that was imported after the bento was built."""
    file = tmp_path_factory.mktemp("newer") / "newer.safetensors"
    make = (
        "import sys; from pathlib import Path; from lpw_sdxl.checkpoint.synthetic import *;"
        "write_checkpoint(Path(sys.argv[1]), SyntheticSize.TINY, seed=9)"
    )
    subprocess.run([sys.executable, "-c", make, str(file)], check=True, timeout=120)
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


def info(url: str) -> dict[str, object]:
    answer: dict[str, object] = httpx.post(f"{url}/info", json={}, timeout=60).json()
    return answer


def test_the_bento_holds_what_it_needs_and_nothing_else(bento: Path) -> None:
    files = {path.relative_to(bento).as_posix() for path in bento.rglob("*") if path.is_file()}
    ours = {name.split("/")[1] for name in files if name.startswith("src/")}
    assert {"service.py", "configuration.yaml", "lpw_sdxl"} <= ours
    assert "src/lpw_sdxl/checkpoint/assets/clip_merges.txt" in files
    for name in files:
        parts = name.split("/")
        assert ".env" not in parts
        assert "tests" not in parts
        assert not any(part.endswith(".egg-info") or part == "__pycache__" for part in parts), name
    for path in bento.rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000:
            assert b"canary" not in path.read_bytes()


def test_the_bento_names_the_model_it_was_built_with(bento: Path, built_tag: str) -> None:
    description = yaml.safe_load((bento / "bento.yaml").read_text(encoding="utf-8"))
    (service,) = description["services"]
    assert [model["tag"] for model in service["models"]] == [built_tag]
    assert description["args"] == {"model": built_tag}


def test_it_serves_its_own_model_from_its_own_environment(
    bento: Path,
    built_tag: str,
    newer_tag: str,
    own_python: Path,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    assert newer_tag != built_tag
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
        response = httpx.post(
            f"{server.url}/generate",
            json={"prompt": "a fox", "num_inference_steps": 3},
            timeout=120,
        )
        assert response.status_code == 200, server.log
        with Image.open(io.BytesIO(response.content)) as image:
            assert image.size == (128, 128)


def test_the_setting_overrides_the_bentos_own_model(
    bento: Path, newer_tag: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with serving(
        f"lpw_sdxl:{bento.name}",
        folder=tmp_path,
        environment=environment | {"LPW_SDXL_MODEL": newer_tag},
        log_file=tmp_path / "log",
    ) as server:
        assert info(server.url)["model_tag"] == newer_tag


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


def test_it_serves_as_an_image_lays_it_out(
    bento: Path, built_tag: str, environment: dict[str, str], home: Path, tmp_path: Path
) -> None:
    """In an image the model lies inside the bento, and BentoML's home has no other."""
    folder = tmp_path / "bento"
    shutil.copytree(bento, folder)
    name, version = built_tag.split(":")
    shutil.copytree(home / "models" / name / version, folder / "models" / name / version)
    (folder / "models" / name / "latest").write_text(version)
    with serving(
        str(folder),
        folder=tmp_path,
        environment=environment | {"BENTOML_HOME": str(tmp_path)},
        log_file=tmp_path / "log",
    ) as server:
        assert info(server.url)["model_tag"] == built_tag
