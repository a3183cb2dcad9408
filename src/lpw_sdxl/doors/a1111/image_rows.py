"""The rows that draw: txt2img and img2img."""

from __future__ import annotations

from collections.abc import Iterator

from lpw_sdxl.api.endpoints import Endpoint
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.doors.door import ServedDoor


def image_rows(served: ServedDoor, model: ServedModel) -> Iterator[Endpoint]:
    """Build the rows."""
    yield from ()
