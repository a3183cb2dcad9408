"""What many tests share: a private model store with a tiny random model in it, and an engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from forks import Forks
from serving import Server, free_port, running

pytest_plugins = ["tests.forge.fixtures", "stores", "processes", "scheduling", "other_users"]
pytest_plugins += ["a1111_server"]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Store:
    """A BentoML home of the tests' own, with a model imported as `sdxl`."""

    home: Path
    tag: str

    @property
    def model_directory(self) -> Path:
        name, version = self.tag.split(":")
        return self.home / "models" / name / version

    @property
    def environment(self) -> dict[str, str]:
        return store_environment(self.home)


def store_environment(home: Path) -> dict[str, str]:
    """An environment that holds nothing of the developer's own settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LPW_SDXL_")}
    kept.pop("BENTOML_CONFIG", None)
    return kept | {
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def run_import(arguments: list[str], environment: Mapping[str, str]) -> str:
    """Run model_import.py as a process of its own and give the tag it ends with."""
    done = subprocess.run(
        [sys.executable, "model_import.py", *arguments],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def pytest_configure() -> None:
    """Keep a developer's own settings out of every test and fixture."""
    for name in [*os.environ]:
        if name.startswith("LPW_SDXL_") or name == "BENTOML_CONFIG":
            del os.environ[name]


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A random model: its pictures are noise, in which every difference shows."""
    from lpw_sdxl.schema import ImageSize
    from lpw_sdxl.weights.dtypes import CheckpointDtype
    from stores import import_here
    from tests.forge.checkpoint import SyntheticSize, write_checkpoint

    home = tmp_path_factory.mktemp("bentoml")
    checkpoint = tmp_path_factory.mktemp("checkpoint") / "random.safetensors"
    write_checkpoint(
        checkpoint,
        SyntheticSize.TINY,
        dtype=CheckpointDtype.FLOAT32,
        native_size=ImageSize(128, 128),
    )
    return Store(home, import_here(home, "checkpoint", str(checkpoint), "--dtype", "fp32"))


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The demo model, which draws what it is told."""
    from stores import import_here

    home = tmp_path_factory.mktemp("demo")
    return Store(home, import_here(home, "demo"))


@pytest.fixture(scope="session")
def plain_server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`bentoml serve` without a setting, on all addresses, for tests that leave it as it was.

    It has a variable that set something once, of which it tells at its start.

    All of a worker's tests share it, and its log: what a test looks for there must be its own.
    """
    home = tmp_path_factory.mktemp("plain")  # BentoML's metrics lie there, one server's at a time
    shutil.copytree(store.home / "models", home / "models")
    port = free_port()
    command = [
        *(sys.executable, "-m", "bentoml", "serve", "service:LpwSdxl"),
        *("--host", "0.0.0.0", "--port", str(port)),
    ]
    environment = store_environment(home) | {"LPW_SDXL_COMPILE": "true"}
    with running(command, port, ROOT, environment, home / "log") as server:
        yield server


@pytest.fixture(scope="session")
def model_directory(store: Store) -> Path:
    return store.model_directory


@pytest.fixture(scope="session")
def engine(model_directory: Path) -> Iterator[object]:
    from lpw_sdxl.engine import Engine
    from lpw_sdxl.settings import Settings

    engine = Engine.load(model_directory, Settings(device="cpu"))
    yield engine
    engine.close()
