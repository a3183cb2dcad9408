"""LoRAs and embeddings in a store, imported as users do, for the tests that serve them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

from lpw_sdxl.lora.targets import encoder_widths, read_targets
from lpw_sdxl.store.kind import AddonKind
from stores import import_here
from tests.forge.lora import LoraOptions, write_lora


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


@dataclass
class AddonMaker:
    """Writes add-ons for a model and imports them."""

    model_directory: Path
    home: Path
    environment: Mapping[str, str]
    folder: Path
    made: dict[str, AddonFile] = field(default_factory=dict)
    _written: list[tuple[AddonKind, str, Path]] = field(default_factory=list)

    def lora(self, name: str, options: LoraOptions) -> None:
        """Write a random LoRA."""
        path = self.folder / f"{name}.safetensors"
        write_lora(path, read_targets(self.model_directory), options)
        self._written.append((AddonKind.LORA, name, path))

    def embedding(self, name: str, vectors: int, seed: int, **metadata: str) -> None:
        """Write a random embedding."""
        generator = torch.Generator().manual_seed(seed)
        widths = encoder_widths(read_targets(self.model_directory))
        tensors = {
            key: torch.randn(vectors, width, generator=generator)
            for key, width in zip(("clip_l", "clip_g"), widths, strict=True)
        }
        path = self.folder / f"{name}.safetensors"
        save_file(tensors, path, metadata or None)
        self._written.append((AddonKind.EMBEDDING, name, path))

    def import_written(self) -> None:
        """Import all that was written since the last time."""
        for kind, name, path in self._written:
            tag = import_here(self.home, kind, str(path), "--name", name)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            entry = self.home / "models" / Path(*tag.split(":"))
            self.made[name] = AddonFile(name, sha256, entry, tag)
        self._written.clear()


def flip_last_byte(path: Path) -> None:
    """Damage a file so that its size does not tell."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
