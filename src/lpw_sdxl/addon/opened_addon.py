"""What every add-on's file is once its header is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lpw_sdxl.addon.manifest import AddonDetails
from lpw_sdxl.store.kind import AddonKind
from lpw_sdxl.store.origin import AuthorNotes
from lpw_sdxl.weights.header import CheckpointHeader
from lpw_sdxl.weights.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

Write = Callable[[Path, Progress], None]
Load = Callable[[], "Mapping[str, Tensor]"]


@dataclass(frozen=True)
class OpenedAddon:
    """A file that can be imported.

    Attributes:
        kind: what it is.
        header: the file's; of a pair, the first text encoder's with the tensors and bytes of both.
        sources: the files whose tensors the entry has, in the order of the text encoders.
        stamps: every file that is read, with its `file_stamp` before it was read.
        details: what is in it, as far as the header has it.
        notes: its author's, as the header has them.
        fits: as in the manifest.
        fits_name: as in the manifest.
        write: writes the entry's file.
        load: reads the tensors that `write` would write, checked as there.
        check: reads and checks them, and keeps none.
    """

    kind: AddonKind
    header: CheckpointHeader
    sources: tuple[Path, ...]
    stamps: Mapping[Path, str]
    details: AddonDetails
    notes: AuthorNotes
    fits: str
    fits_name: str
    write: Write
    load: Load
    check: Callable[[], object]
