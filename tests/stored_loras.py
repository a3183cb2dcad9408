"""LoRAs of a loaded model as entries of a store, made without an import."""

from __future__ import annotations

from pathlib import Path

from lora.conftest import Matches, is_attention, networks_of, write_canonical
from lpw_sdxl.addon.entry import StoredAddon
from lpw_sdxl.addon.manifest import AddonDetails, AddonManifest
from lpw_sdxl.diffusion.pipeline import Pipeline
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.origin import Origin
from lpw_sdxl.weights.component import Component
from lpw_sdxl.weights.files import record_file


def store_lora(
    folder: Path,
    name: str,
    pipeline: Pipeline,
    seed: int,
    matches: Matches = is_attention,
    *,
    has_encoders: bool = True,
) -> StoredAddon:
    """Write a random LoRA and its manifest.

    Args:
        folder: of all entries.
        name: as requests name it.
        pipeline: the model.
        seed: of the LoRA's numbers.
        matches: returns which weights it changes.
        has_encoders: whether it changes the text encoders too.
    """
    directory = folder / f"lora-{name.lower()}" / "1"
    directory.mkdir(parents=True)
    networks = networks_of(pipeline)
    if not has_encoders:
        networks = {Component.UNET: networks[Component.UNET]}
    file = directory / AddonKind.LORA.file_name
    write_canonical(file, networks, seed, matches)
    manifest = AddonManifest(
        kind=AddonKind.LORA,
        name=name,
        origin=Origin(f"file:{name}.safetensors", f"{name}.safetensors", 1, f"{seed:064x}"),
        fits="",
        fits_name="",
        details=AddonDetails(kinds=("LoRA",), modules={str(one): 1 for one in networks}),
        created="2026-01-01",
        importer_version="0",
        files={file.name: record_file(file)},
    )
    return StoredAddon(manifest, directory)
