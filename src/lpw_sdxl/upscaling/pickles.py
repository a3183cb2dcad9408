"""Files of torch's own, `.pth`, recognised by their first bytes; no torch."""

from __future__ import annotations

from pathlib import Path

from lpw_sdxl.weights.header import announced_header

MAX_PICKLE_BYTES = 1_000_000_000
"""The largest upscaler of ESRGAN's family that is known has 134 MB."""

_ZIP = b"PK\x03\x04"
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in (2, 3, 4, 5))


def is_pickle_file(path: Path) -> bool:
    """Return whether a file begins as torch's do: a zip archive with a pickle, or a pickle."""
    try:
        with path.open("rb") as file:
            opening = file.read(16)
    except OSError:
        return False
    return announced_header(opening, None) is None and opening.startswith((_ZIP, *_PICKLES))
