"""LoRAs and embeddings in a store, imported as users do, for the tests that serve them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from conftest import run_import
from lpw_sdxl.addon.kind import AddonKind
from lpw_sdxl.lora.synthetic import write_lora
from lpw_sdxl.lora.targets import read_targets, text_encoder_widths


@dataclass(frozen=True)
class AddonFile:
    """A file that was imported, and what it became.

    Attributes:
        name: as requests name it.
        sha256: of the file.
        entry: its directory in the store.
        tag: in the store.
    """

    name: str
    sha256: str
    entry: Path
    tag: str


@dataclass(frozen=True)
class AddonMaker:
    """Writes add-ons for a model and imports them, each by a process of its own."""

    model_directory: Path
    home: Path
    environment: Mapping[str, str]
    folder: Path
    made: dict[str, AddonFile] = field(default_factory=dict)

    def lora(self, name: str, **recipe: Any) -> AddonFile:
        """Import a random LoRA; `recipe` is `write_lora`'s."""
        path = self.folder / f"{name}.safetensors"
        write_lora(path, read_targets(self.model_directory), **recipe)
        return self._import(AddonKind.LORA, name, path)

    def embedding(self, name: str, vectors: int, seed: int, **metadata: str) -> AddonFile:
        """Import a random embedding whose vectors are as long as those of words."""
        generator = torch.Generator().manual_seed(seed)
        widths = text_encoder_widths(read_targets(self.model_directory))
        tensors = {
            key: torch.randn(vectors, width, generator=generator)
            for key, width in zip(("clip_l", "clip_g"), widths, strict=True)
        }
        path = self.folder / f"{name}.safetensors"
        save_file(tensors, path, metadata or None)
        return self._import(AddonKind.EMBEDDING, name, path)

    def _import(self, kind: AddonKind, name: str, path: Path) -> AddonFile:
        tag = run_import([kind, str(path), "--name", name], self.environment)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        entry = self.home / "models" / Path(*tag.split(":"))
        self.made[name] = AddonFile(name, sha256, entry, tag)
        return self.made[name]


def flip_last_byte(path: Path) -> None:
    """Damage a file so that its size does not tell."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
