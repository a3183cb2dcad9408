"""An engine's description of itself."""

from __future__ import annotations

from dataclasses import asdict

from addon.conftest import MANIFEST, Write
from lpw_sdxl.addon.entry import EntrySource, Fits
from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.addon.registry import Registry
from lpw_sdxl.engine.description import describe_embeddings, describe_loras
from lpw_sdxl.store.kind import AddonKind

pytest_plugins = ["addon.conftest"]


def test_addons_are_listed_by_name_with_hash_base_and_words(write_entry: Write) -> None:
    embedding = {"kind": AddonKind.EMBEDDING, "details": AddonDetails(vectors=8)}
    directories = [write_entry(name="b"), write_entry(name="A"), write_entry(name="n", **embedding)]
    registry = Registry.of([EntrySource(lambda: directories, Fits()).look()])
    loras = describe_loras(registry.loras)
    assert [lora.name for lora in loras] == ["A", "b"]
    assert asdict(loras[0]) == {
        "name": "A",
        "sha256": MANIFEST.origin.sha256,
        "autov2": "0D9BD1B873",
        "base_model": "SDXL 1.0",
        "trained_words": ["add detail"],
        "kinds": ["LoRA"],
    }
    assert [one.vectors for one in describe_embeddings(registry.embeddings)] == [8]
