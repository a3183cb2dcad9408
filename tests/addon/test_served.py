"""Which LoRAs and embeddings a service offers where a name is in two places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lpw_sdxl.addon.served import served_directories
from lpw_sdxl.store import publication
from lpw_sdxl.store.manifest import list_files, write_manifest
from lpw_sdxl.store.volume import Volume, open_volume
from lpw_sdxl.weights.files import record_file

from .conftest import MANIFEST


def fill(directory: Path) -> None:
    (directory / "lora.safetensors").write_bytes(b"data")
    files = {name: record_file(path) for name, path in list_files(directory).items()}
    write_manifest(directory, replace(MANIFEST, files=files))


@pytest.fixture
def own(store_home: Path) -> list[Path]:
    """Two LoRAs of BentoML's store: lora-both and lora-here."""
    paths = []
    for name in ("lora-both", "lora-here"):
        with publication.exclusive_import() as workshop:
            entry = publication.prepare_publication(f"{name}:aa", {}, workshop)
            fill(entry.directory)
            paths.append(entry.publish().path)
    return paths


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Two LoRAs of a volume: lora-both and lora-there."""
    for name in ("lora-both", "lora-there"):
        directory = tmp_path / "volume" / name / "bb"
        directory.mkdir(parents=True)
        fill(directory)
    opened = open_volume(tmp_path / "volume")
    assert opened is not None
    return opened


def test_a_bentos_own_come_first(own: list[Path], volume: Volume, tmp_path: Path) -> None:
    (tmp_path / "bento.yaml").write_text("services: [{name: S, models: []}]")
    both, here = own
    found = served_directories(["lora-both:aa", "lora-here:aa"], tmp_path / "src", volume)
    assert found == [both, here, volume.folder / "lora-there" / "bb"]
    assert served_directories([], tmp_path / "src", volume) == volume.addon_directories()


def test_in_a_checkout_the_volumes_come_first(
    own: list[Path], volume: Volume, tmp_path: Path
) -> None:
    found = served_directories([], tmp_path / "src", volume)
    assert found == [*volume.addon_directories(), own[1]]
    assert served_directories([], tmp_path / "src", None) == own
