"""Where a service's LoRAs and embeddings are, and whose of one name comes first."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lpw_sdxl.addon.served import AddonStore, find_places
from lpw_sdxl.settings import Settings
from lpw_sdxl.store import publication
from lpw_sdxl.store.manifest import write_manifest
from lpw_sdxl.store.verification import list_files
from lpw_sdxl.store.volume import Volume, open_volume
from lpw_sdxl.weights.files import record_file
from other_users import as_another_user

from .conftest import MANIFEST


def fill(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lora.safetensors").write_bytes(b"data")
    files = {name: record_file(path) for name, path in list_files(directory).items()}
    write_manifest(directory, replace(MANIFEST, files=files))
    return directory


@pytest.fixture
def own(store_home: Path) -> Path:
    """A LoRA of BentoML's store, lora-own:aa."""
    with publication.exclusive_import() as workshop:
        entry = publication.prepare_publication("lora-own:aa", {}, workshop)
        fill(entry.directory)
        return entry.publish().path


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    (tmp_path / "volume").mkdir()
    opened = open_volume(tmp_path / "volume")
    assert opened is not None
    return opened


def test_a_bentos_own_come_first(own: Path, volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "bento.yaml").write_text("services: [{name: S, models: []}]")
    there = AddonStore(volume.folder)
    places = find_places(["lora-own:aa"], tmp_path / "src", Settings(), volume)
    assert (places.built_in, places.stores) == ((own,), (there,))
    places = find_places([], tmp_path / "src", Settings(), volume)
    assert (places.built_in, places.stores) == ((), (there,))


def test_in_a_checkout_the_volumes_come_first(own: Path, volume: Volume, tmp_path: Path) -> None:
    here = AddonStore(own.parents[1])
    places = find_places([], tmp_path / "src", Settings(), volume)
    assert (places.built_in, places.stores) == ((), (AddonStore(volume.folder), here))
    assert find_places([], tmp_path / "src", Settings(), None).stores == (here,)


def test_hidden_folders_and_foreign_ones_hold_none(volume: Volume) -> None:
    there = fill(volume.folder / "lora-there" / "bb")
    fill(volume.folder / ".importing" / "lora-half")
    fill(volume.folder / "lora-there" / "cc").joinpath("manifest.json").unlink()
    assert AddonStore(volume.folder).list_addons() == [there]


@pytest.mark.processes
def test_a_closed_entry_is_listed_for_its_reader_to_name(open_folder: Path) -> None:
    entry = fill(open_folder / "lora-there" / "bb")
    entry.chmod(0o700 if os.geteuid() == 0 else 0o000)
    listed = as_another_user(lambda: AddonStore(open_folder).list_addons())
    entry.chmod(0o755)
    assert listed == str([entry])
