"""The alphas of a stored LoRA: single numbers, too few to need torch."""

from __future__ import annotations

import struct
from pathlib import Path

from lpw_sdxl.weights.header import read_header

_ENDING = "/alpha"
_KEPT_AT_MOST = 64


def read_alphas(path: Path) -> tuple[float, ...]:
    """Return the different alphas of a canonical LoRA file, sorted; the first 64 of very many."""
    values = set()
    with path.open("rb") as file:
        for name, info in read_header(path).tensors.items():
            if name.endswith(_ENDING) and info.dtype == "F32":
                file.seek(info.start)
                values.add(struct.unpack("<f", file.read(4))[0])
    return tuple(sorted(values)[:_KEPT_AT_MOST])
