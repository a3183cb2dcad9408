"""Trained parts on the disk, each kept with what it was made from, so that none passes for another.

Knows nothing of what is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from lpw_sdxl.weights.files import record_file


class Keepable(Protocol):
    """A module, or what else has a state."""

    def state_dict(self) -> dict[str, Any]:
        """Give the state: tensors and numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Take a state."""


@dataclass(frozen=True)
class Part:
    """A file with a state, whole or not there.

    Attributes:
        path: of the file.
        made_from: what may differ between runs of the same code: seed, steps, the parts before it.
    """

    path: Path
    made_from: str

    def load(self, target: Keepable) -> bool:
        """Fill the target, if the file is there and was made from the same."""
        if not self.path.exists():
            return False
        kept = torch.load(self.path, weights_only=True)
        if kept["made_from"] != self.made_from:
            print(f"{self.path} is of another run, and will be replaced.", flush=True)
            return False
        target.load_state_dict(kept["state"])
        print(f"Using {self.path} of an earlier run.", flush=True)
        return True

    def keep(self, source: Keepable) -> None:
        """Write the file; one that is there stays until the new one is whole."""
        new = self.path.with_suffix(".new")
        torch.save({"made_from": self.made_from, "state": source.state_dict()}, new)
        new.replace(self.path)

    def sha256(self) -> str:
        """Give the file's SHA-256."""
        return record_file(self.path).sha256
