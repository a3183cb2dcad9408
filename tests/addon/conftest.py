"""Small LoRAs' entries, embeddings' files, and a model store of the tests' own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from conftest import Store, store_environment
from forks import Finished, Forks
from lpw_sdxl.addon.manifest import AddonDetails, AddonManifest
from lpw_sdxl.store.kind import AddonKind, store_name
from lpw_sdxl.store.manifest import write_manifest
from lpw_sdxl.weights.files import record_file

MANIFEST = AddonManifest(
    kind=AddonKind.LORA,
    name="Add Detail XL",
    source="civitai:135867",
    source_file="add-detail-xl.safetensors",
    source_size=4,
    source_sha256="0d9bd1b873a7863e128b4672e3e245838858f71469a3cec58123c16c06f83bd7",
    title="Detail Tweaker XL",
    base_model="SDXL 1.0",
    trained_words=("add detail",),
    fits="a signature",
    fits_name="SDXL",
    details=AddonDetails(("LoRA",), "kohya", (4, 8), (2.0,), {"unet": 722, "text_encoder": 72}),
    created="2026-11-23T10:00:00.000000+00:00",
    importer_version="0.1.0",
    files={},
)
Write = Callable[..., Path]


@pytest.fixture
def write_entry(tmp_path: Path) -> Write:
    """Write an entry as the store has it, without BentoML's own file."""

    def write(version: str = "0d9bd1b873a7", content: bytes = b"data", **changes: object) -> Path:
        manifest = replace(MANIFEST, **changes)
        directory = tmp_path / "models" / store_name(manifest.kind, manifest.name) / version
        directory.mkdir(parents=True)
        file = directory / manifest.kind.file_name
        file.write_bytes(content)
        files = {file.name: record_file(file)}
        write_manifest(directory, replace(manifest, files=files))
        return directory

    return write


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


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write tensors with the safetensors library."""

    def save(tensors: dict[str, torch.Tensor], name: str, **metadata: str) -> Path:
        path = tmp_path / name
        save_file(tensors, path, metadata or None)
        return path

    return save
