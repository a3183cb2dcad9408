"""Imports as the command line makes them, into a model store of the test's own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Store, store_environment
from forks import Finished, Forks
from lpw_sdxl.checkpoint.selection import Selection
from lpw_sdxl.importing.checkpoints import CheckpointImporter
from lpw_sdxl.importing.entry import import_entry
from lpw_sdxl.importing.importer import ImportOptions, ImportResult
from lpw_sdxl.store import entries
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.dtypes import CheckpointDtype
from lpw_sdxl.weights.progress import Progress
from stores import store_at
from tests.checkpoint.conftest import (  # noqa: F401 - fixtures, by their names
    _tiny_tensors,
    _work_that_repeats_is_done_once,
    change_tensor,
    save,
    second_checkpoint,
    silent,
    tiny_tensors,
)


def mine(
    *,
    selection: Selection | None = None,
    dtype: CheckpointDtype = CheckpointDtype.FLOAT16,
    name: str = "mine",
    **options: object,
) -> CheckpointImporter:
    """An import under the name `mine`, with these options."""
    return CheckpointImporter(ImportOptions(name, **options), selection or Selection(), dtype)


MINE = mine()


def fail_at_once(stage: str, done: int, total: int) -> None:
    """Progress of work that must not begin."""
    raise AssertionError(f"{stage} began")


def import_file(
    path: Path, importer: CheckpointImporter = MINE, *, progress: Progress = silent
) -> ImportResult:
    """Import as the command line does."""
    opened = importer.open(path)
    return import_entry(importer, opened, f"file:{path.name}", AuthorNotes(), progress)


@pytest.fixture(scope="session")
def imported(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ImportResult]:
    """A store with the tiny checkpoint in it, imported once; `entry` gives each test a copy."""
    with store_at(tmp_path_factory.mktemp("imported")) as home:
        return home, import_file(tiny_checkpoint)


@pytest.fixture
def entry(store_home: Path, imported: tuple[Path, ImportResult]) -> entries.StoreEntry:
    """The tiny checkpoint as mine:VERSION in the test's own store."""
    home, result = imported
    shutil.copytree(home, store_home, dirs_exist_ok=True)
    return entries.find(result.tag)


@dataclass(frozen=True)
class CommandLine:
    """model_import.py on a store with a tiny model in it."""

    forks: Forks
    home: Path
    model: str
    environment: dict[str, str]

    def run(self, *words: str, **environment: str) -> Finished:
        return self.forks.run(words, self.environment | environment)

    def entry(self, tag: str) -> Path:
        return self.home / "models" / tag.replace(":", "/")

    def snapshot(self) -> dict[str, int]:
        """Every file of the store and of its staging area, with the time of its last change."""
        return {
            str(path.relative_to(self.home)): path.stat().st_mtime_ns
            for path in self.home.rglob("*")
            if path.is_file() and path.suffix != ".lock"
        }


@pytest.fixture
def command_line(forks: Forks, store: Store, tmp_path: Path) -> CommandLine:
    home = shutil.copytree(store.home, tmp_path / "bentoml")
    environment = store_environment(home) | {"LPW_SDXL_DOWNLOADS": str(tmp_path / "downloads")}
    return CommandLine(forks, home, store.tag, environment)
