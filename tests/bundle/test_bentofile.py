"""What every line of bentofile.yaml and .bentoignore does, seen in the bento that it makes.

Each was taken out once, to see one of these tests fail.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT, Store

pytestmark = [pytest.mark.bundle, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def bento(store: Store) -> Path:
    """A bento of this checkout, built among files that have no place in it."""
    package = ROOT / "src" / "lpw_sdxl"
    strays = [package / ".env", package / "__pycache__" / "stray.pyc", package / "stray.pyc"]
    strays.append(package / "stray.egg-info" / "PKG-INFO")
    for stray in strays:
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("stray")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
            cwd=ROOT,
            env=store.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        )
    finally:
        for stray in strays:
            stray.unlink()
        strays[-1].parent.rmdir()
    name, version = done.stdout.strip().splitlines()[-1].removeprefix("__tag__:").split(":")
    return store.home / "bentos" / name / version


@pytest.fixture(scope="module")
def description(bento: Path) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((bento / "bento.yaml").read_text(encoding="utf-8"))
    return told


@pytest.fixture(scope="module")
def steps(bento: Path) -> list[str]:
    """The lines of the image's recipe."""
    return (bento / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8").splitlines()


def test_service_description_and_label_are_told(bento: Path, description: dict[str, Any]) -> None:
    assert description["service"] == "service:LpwSdxl"
    assert description["labels"] == {"project": "lpw-sdxl"}
    assert (bento / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()


def test_the_sources_are_an_allow_list(bento: Path) -> None:
    package = (ROOT / "src" / "lpw_sdxl").rglob("*")
    sources = {path.relative_to(ROOT / "src") for path in package if path.is_file()}
    expected = {path.as_posix() for path in sources if "__pycache__" not in path.parts}
    expected |= {"service.py", "configuration.yaml", "LICENSE", "demo/lpw-sdxl-demo.safetensors"}
    expected.add("bentofile.yaml")  # BentoML's own doing
    found = {path.relative_to(bento / "src") for path in (bento / "src").rglob("*")}
    assert {path.as_posix() for path in found if (bento / "src" / path).is_file()} == expected


def test_every_package_is_locked_to_one_version(bento: Path) -> None:
    text = (bento / "env" / "python" / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("--")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[^ ;]+( ; .*)?", line) for line in lines)
    locked = {line.partition("==")[0] for line in lines}
    wanted = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    ours = re.findall(r"^([A-Za-z0-9_.-]+)==", wanted, flags=re.MULTILINE)
    assert {re.sub(r"[_.]", "-", name.lower()) for name in ours} <= locked
    assert len(locked) > 2 * len(ours)  # what ours need is locked too


def test_the_image_is_made_from_the_base_with_the_variables(steps: list[str]) -> None:
    assert "FROM python:3.11-slim-bookworm AS base-container" in steps
    assert "ARG BENTOML_CONFIG=/home/bentoml/bento/src/configuration.yaml" in steps
    assert "ENV BENTOML_CONFIG=$BENTOML_CONFIG" in steps
    assert "ARG PYTHONPATH=/home/bentoml/bento/src" in steps
    assert "ENV PYTHONPATH=$PYTHONPATH" in steps
    assert "ARG BENTOML_DO_NOT_TRACK=True" in steps
    assert "ENV BENTOML_DO_NOT_TRACK=$BENTOML_DO_NOT_TRACK" in steps
