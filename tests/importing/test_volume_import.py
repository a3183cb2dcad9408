"""The import into a folder on a volume: there alone, whole, and open to every user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Store
from forks import Finished
from lpw_sdxl.store.manifest import read_manifest
from lpw_sdxl.store.verification import verify_files
from lpw_sdxl.store.volume import open_volume
from lpw_sdxl.store.writing import volume_store
from other_users import as_another_user
from stores import run_here

LORA = ROOT / "demo" / "addons" / "demo-frame.safetensors"


class Volume:
    """A folder that LPW_SDXL_STORE names, and a BENTOML_HOME elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "volume" / "store"
        self.home = folder / "home"

    def run(self, *words: str) -> Finished:
        return run_here(self.home, *words)

    def modes(self) -> set[tuple[str, int]]:
        """Kind and mode of all that is there but what is being made."""
        found = set()
        for path in [self.store, *self.store.rglob("*")]:
            if ".importing" not in path.parts:
                kind = "folder" if path.is_dir() else "file"
                found.add((kind, stat.S_IMODE(path.stat().st_mode)))
        return found


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    volume = Volume(tmp_path)
    monkeypatch.setenv("LPW_SDXL_STORE", str(volume.store))
    return volume


@pytest.fixture
def _closing_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_closing_umask")
def test_what_is_imported_is_on_the_volume_alone_for_every_user_to_read(
    volume: Volume, tiny_checkpoint: Path
) -> None:
    done = volume.run("checkpoint", str(tiny_checkpoint))
    assert done.status == 0, done.sentence
    opened = open_volume(volume.store)
    assert opened is not None
    directory = opened.find_model(done.tag)
    assert directory is not None
    verify_files(directory, read_manifest(directory))
    assert volume.modes() == {("folder", 0o755), ("file", 0o644)}
    assert stat.S_IMODE(volume.store.parent.stat().st_mode) == 0o755
    assert [path.name for path in (volume.store / ".importing").iterdir()] == [
        "lpw-sdxl-import.lock"
    ]
    assert not [path for path in volume.home.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("_closing_umask")
def test_so_is_what_is_imported_into_bentomls_store(tmp_path: Path, tiny_checkpoint: Path) -> None:
    done = run_here(tmp_path, "checkpoint", str(tiny_checkpoint))
    assert done.status == 0, done.sentence
    name = tmp_path / "models" / "sdxl"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [name, *name.rglob("*")]}
    assert modes == {0o755, 0o644}


def test_every_command_works_there(volume: Volume, demo_store: Store) -> None:
    imported = volume.run("demo")
    assert imported.status == 0, imported.sentence
    assert volume.run("demo").output.splitlines()[-3] == "Already imported; nothing changed."
    lora = volume.run("lora", str(LORA))
    assert lora.status == 0, lora.sentence
    listed = volume.run("list").output.splitlines()
    assert [line.split()[0] for line in listed] == [lora.tag, imported.tag]
    assert volume.run("verify", "sdxl").tag == imported.tag
    assert volume.run("remove", lora.tag).tag == lora.tag
    assert [line.split()[0] for line in volume.run("list").output.splitlines()] == [imported.tag]
    assert sorted(path.name for path in volume.store.iterdir()) == [".importing", "sdxl"]


def test_a_bentoml_home_on_a_volume_keeps_its_entries_in_models(
    volume: Volume, tiny_checkpoint: Path
) -> None:
    for name in ("bentos", "models"):
        (volume.store / name).mkdir(parents=True)
    done = volume.run("checkpoint", str(tiny_checkpoint))
    assert done.status == 0, done.sentence
    assert (volume.store / "models" / done.tag.replace(":", "/") / "manifest.json").is_file()
    # BentoML takes every folder there for a model's, and ends at one of another name.
    assert [path.name for path in (volume.store / "models").iterdir()] == ["sdxl"]


def test_a_folder_that_is_missing_is_made_by_an_import_alone(volume: Volume) -> None:
    listed = volume.run("list")
    assert (listed.status, listed.output) == (0, "")
    for command in ("verify", "remove"):
        failed = volume.run(command, "sdxl")
        assert failed.status == 1
        assert failed.sentence.startswith("model_import: No model sdxl is in the store; import one")
    assert not volume.store.exists()


@pytest.mark.parametrize("command", ["demo", "list", "remove"])
def test_a_file_in_its_place_is_one_sentence(volume: Volume, command: str) -> None:
    volume.store.parent.mkdir()
    volume.store.touch()
    done = volume.run(command, *(["sdxl"] if command == "remove" else []))
    assert done.status == 1
    assert f"LPW_SDXL_STORE names {volume.store}, " in done.sentence
    assert "is a file; a folder would be right" in done.sentence
    assert done.sentence.count("\n") == 1


@pytest.mark.processes
def test_a_folder_of_another_user_is_one_sentence(open_folder: Path) -> None:
    def write() -> None:
        with volume_store(open_folder / "store", makes=True, writes=True):
            pass

    if os.geteuid() != 0:
        open_folder.chmod(0o555)
    assert "LPW_SDXL_STORE names" in (sentence := as_another_user(write))
    assert "can't write to; a folder that this user may write to, or the same command" in sentence


@pytest.mark.parametrize("store", [None, "/volume"])
def test_inspect_needs_no_store(
    store: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store:
        monkeypatch.setenv("LPW_SDXL_STORE", store)
    assert run_here(tmp_path, "inspect", str(LORA)).status == 0


@pytest.mark.parametrize("words", [("demo",), ("lora", str(LORA))])
def test_in_an_image_without_a_volume_an_import_is_refused_before_it_begins(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_CONTAINERIZED", "true")
    done = run_here(tmp_path, *words)
    assert done.status == 1
    assert "LPW_SDXL_STORE is not set, and what is imported into" in done.sentence
    assert run_here(tmp_path, "list").status == 0
