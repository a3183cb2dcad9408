"""Which program builds the image, with the test's own in the place of docker and podman.

That an image comes of it is seen in tests/container.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, store_environment

pytestmark = pytest.mark.processes

SCRIPT = ROOT / "deploy" / "container" / "layered_image.py"
NO_DAEMON = "echo 'Client: fine'; echo 'Cannot connect to the Docker daemon.' >&2; exit 1"
ANSWERS = "echo 'Server: fine'"
NO_BENTO = "There is no bento lpw_sdxl:latest"


def run(tmp_path: Path, programs: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script where no other programs are found than these."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f'#!/bin/sh\n[ "$*" = info ] || exit 9\n{script}\n')
        (folder / name).chmod(0o755)
    return subprocess.run(
        [sys.executable, str(SCRIPT), "lpw_sdxl:latest", *words],
        env=os.environ | store_environment(tmp_path / "home") | {"PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("programs", "line"),
    [
        ({"docker": ANSWERS, "podman": ANSWERS}, "building with docker"),
        ({"docker": ANSWERS}, "building with docker"),
        (
            {"docker": NO_DAEMON, "podman": ANSWERS},
            "docker does not answer (Cannot connect to the Docker daemon); building with podman",
        ),
        ({"podman": ANSWERS}, "docker is not installed; building with podman"),
    ],
    ids=["both", "docker", "docker without its daemon", "podman"],
)
def test_the_first_that_answers_is_taken_and_named(
    tmp_path: Path, programs: dict[str, str], line: str
) -> None:
    done = run(tmp_path, programs)
    assert done.stdout == f"{line}\n"
    assert NO_BENTO in done.stderr  # which is looked for next


@pytest.mark.parametrize(
    ("programs", "reasons"),
    [
        ({}, "docker is not installed; podman is not installed"),
        (
            {"docker": NO_DAEMON, "podman": "exit 125"},
            "docker does not answer (Cannot connect to the Docker daemon); podman does not answer"
            " (no reason)",
        ),
    ],
    ids=["none", "none that answers"],
)
def test_where_none_can_be_used_one_sentence_has_the_reasons(
    tmp_path: Path, programs: dict[str, str], reasons: str
) -> None:
    done = run(tmp_path, programs)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"An image needs docker or podman, and neither can be used: {reasons}.\n"
    )


def test_one_that_is_named_is_taken_unasked(tmp_path: Path) -> None:
    done = run(tmp_path, {"docker": NO_DAEMON}, "--backend", "docker")
    assert done.stdout == ""
    assert NO_BENTO in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    ("variable", "words"), [("", ""), ("BACKEND=buildah", "--backend buildah")]
)
def test_make_names_a_program_only_if_it_was_told(variable: str, words: str) -> None:
    # As in a shell of its own: the tests are run by a make, which would say where it goes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-n", "image", *variable.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    line = done.stdout.strip().splitlines()[-1]
    assert line.split()[2:] == ["lpw_sdxl:latest", *words.split()]
