"""How a checkpoint is imported, and what came of it; knows nothing of how that is done."""

from __future__ import annotations

from dataclasses import dataclass

from lpw_sdxl.weights.dtypes import CheckpointDtype


@dataclass(frozen=True)
class ImportOptions:
    """How a checkpoint is imported.

    Attributes:
        name: of the model in the store.
        dtype: that its weights are kept and run in.
        sha256: what the file's SHA-256 must be, or None.
        force: whether an entry of the same tag is replaced.
    """

    name: str = "sdxl"
    dtype: CheckpointDtype = CheckpointDtype.FLOAT16
    sha256: str | None = None
    force: bool = False


@dataclass(frozen=True)
class ImportResult:
    """The entry's tag, and whether it was there before."""

    tag: str
    was_known: bool
