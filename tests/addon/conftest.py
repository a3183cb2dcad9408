"""Small LoRAs' entries, embeddings' files, and a model store of the tests' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lpw_sdxl.addon.manifest import AddonDetails, AddonManifest
from lpw_sdxl.store.kind import AddonKind, store_name
from lpw_sdxl.store.manifest import write_manifest
from lpw_sdxl.store.origin import AuthorNotes, Origin
from lpw_sdxl.weights.files import record_file

MANIFEST = AddonManifest(
    kind=AddonKind.LORA,
    name="Add Detail XL",
    origin=Origin(
        "civitai:135867",
        "add-detail-xl.safetensors",
        4,
        "0d9bd1b873a7863e128b4672e3e245838858f71469a3cec58123c16c06f83bd7",
        AuthorNotes("Detail Tweaker XL", "SDXL 1.0", ("add detail",)),
    ),
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
