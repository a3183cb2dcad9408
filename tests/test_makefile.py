"""`make install` and `make bundle` with torch from an index of its own: real make, pip and uv.

The checkout is a small one with the repository's Makefile, and every torch is a wheel of one line.
"""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = pytest.mark.processes

PROJECT = """
[project]
name = "checkout"
version = "1"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
from __future__ import annotations
import zipfile
from pathlib import Path

{write_wheel}

def build_editable(folder, config_settings=None, metadata_directory=None):
    return write_wheel(folder, "checkout", "1").name
"""
# In the place of BentoML, which locks a bento's packages with this command.
LOCK = f"""#!/bin/sh
exec {sys.executable} -m uv pip compile -q --no-header --no-index --emit-find-links requirements.txt
"""


def write_wheel(folder: str | Path, name: str, version: str) -> Path:
    info = f"{name}-{version}.dist-info"
    path = Path(folder) / f"{name}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", facts)
        archive.writestr(f"{info}/WHEEL", tags)
        archive.writestr(f"{info}/RECORD", "")
    return path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """The address of a server with two indexes: pages of links, as PyTorch's are."""
    folder = tmp_path / "indexes"
    for cuda in ("cu118", "cu126"):
        name = write_wheel(folder / cuda / "torch", "torch", f"2.13.0+{cuda}").name
        link = f'<a href="{name.replace("+", "%2B")}">{name}</a>'
        (folder / cuda / "torch" / "index.html").write_text(f"<!DOCTYPE html><body>{link}</body>")
        # What no pip and no uv may see: it is older than what is pinned.
        write_wheel(folder / cuda / "numpy", "numpy", "1.0")
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """What PyPI has."""
    write_wheel(tmp_path / "wheels", "torch", "2.13.0")
    write_wheel(tmp_path / "wheels", "numpy", "2.4.6")
    return tmp_path / "wheels"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").write_text("numpy==2.4.6\ntorch==2.13.0\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "model_import.py").write_text("print('sdxl:012345678901')")
    (folder / "backend.py").write_text(BACKEND.format(write_wheel=inspect.getsource(write_wheel)))
    return folder


@pytest.fixture
def environment(wheels: Path) -> dict[str, str]:
    cleared = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "MAKE", "MFLAGS"))
    }
    return cleared | {
        "PIP_FIND_LINKS": str(wheels),
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "BASE_PYTHON": sys.executable,
    }


def test_torch_comes_from_the_index_that_is_named_until_another_is(
    checkout: Path, wheels: Path, index: str, environment: dict[str, str]
) -> None:
    def make(*words: str) -> str:
        done = subprocess.run(
            ["make", *words],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def installed() -> list[str]:
        (packages,) = checkout.glob(".venv/lib/*/site-packages")
        found = packages.glob("*.dist-info")
        return sorted(path.stem for path in found if path.stem.startswith(("torch", "numpy")))

    def lock() -> list[str]:
        bentoml = checkout / ".venv" / "bin" / "bentoml"
        bentoml.write_text(LOCK)
        bentoml.chmod(0o755)
        lines = make("bundle").splitlines()
        return [line for line in lines if line.startswith(("torch=", "numpy=", "--find-links"))]

    make("install")
    assert installed() == ["numpy-2.4.6", "torch-2.13.0"]
    assert lock() == [f"--find-links {wheels}", "numpy==2.4.6", "torch==2.13.0"]

    for cuda, slash in (("cu126", ""), ("cu118", "/")):  # the second is the lower version
        make("install", f"TORCH_INDEX={index}/{cuda}{slash}")
        expected = ["numpy-2.4.6", f"torch-2.13.0+{cuda}"]
        assert installed() == expected
        assert "Installing" not in make("install")  # it is remembered
        assert installed() == expected
        assert lock() == [
            f"--find-links {wheels}",
            f"--find-links {index}/{cuda}/torch/",
            "numpy==2.4.6",
            f"torch==2.13.0+{cuda}",
        ]

    make("install", "TORCH_INDEX=")
    assert installed() == ["numpy-2.4.6", "torch-2.13.0"]
    assert lock() == [f"--find-links {wheels}", "numpy==2.4.6", "torch==2.13.0"]
