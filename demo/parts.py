"""Trained parts on the disk, each with a note of its inputs, so that none is mistaken for another.

Knows nothing of what is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from lpw_sdxl.weights.files import record_file


class Keepable(Protocol):
    """A module, or another object with a state."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Load a state."""


@dataclass(frozen=True)
class Part:
    """A file with a state, complete or absent.

    Attributes:
        path: of the file.
        made_from: what may differ between runs of the same code: seed, steps, the parts before it.
    """

    path: Path
    made_from: str

    def load(self, target: Keepable) -> bool:
        """Load the state into the target, if the file exists and was made from the same inputs."""
        if not self.path.exists():
            return False
        kept = torch.load(self.path, map_location=torch.get_default_device(), weights_only=True)
        if kept["made_from"] != self.made_from:
            print(f"{self.path} is of another run, and will be replaced.", flush=True)
            return False
        target.load_state_dict(kept["state"])
        print(f"Using {self.path} of an earlier run.", flush=True)
        return True

    def keep(self, source: Keepable) -> None:
        """Write the file; an existing one stays until the new one is complete."""
        new = self.path.with_suffix(".new")
        torch.save({"made_from": self.made_from, "state": source.state_dict()}, new)
        new.replace(self.path)

    def sha256(self) -> str:
        """Return the file's SHA-256."""
        return record_file(self.path).sha256
