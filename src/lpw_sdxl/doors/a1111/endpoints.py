"""The rows of A1111's paths: those that draw, lists, and what is asked of jobs."""

from __future__ import annotations

from dataclasses import replace

from lpw_sdxl.api.endpoints import Endpoint
from lpw_sdxl.doors.a1111.errors import A1111
from lpw_sdxl.doors.a1111.extras_rows import extras_rows
from lpw_sdxl.doors.a1111.image_rows import image_rows
from lpw_sdxl.doors.a1111.job_rows import job_rows
from lpw_sdxl.doors.a1111.list_rows import list_rows
from lpw_sdxl.doors.a1111.lobby import Lobby
from lpw_sdxl.doors.a1111.png_info import info_row
from lpw_sdxl.doors.a1111.served_model import ServedModel
from lpw_sdxl.doors.a1111.side_rows import side_rows
from lpw_sdxl.doors.door import ServedDoor

PREFIXES = ("/sdapi/", "/internal/", "/controlnet/", "/queue/")
"""Beginnings of its paths: what is not there is a 404 in its shape, by which clients probe."""


def a1111_endpoints(served: ServedDoor) -> tuple[Endpoint, ...]:
    """Build the rows."""
    name = served.model_tag.partition(":")[0]
    model = ServedModel(name, served.model_tag, served.model_file, served.model_sha256)
    lobby = Lobby()
    rows = (
        *image_rows(served, model, lobby),
        *job_rows(lobby),
        *list_rows(model),
        *extras_rows(served, lobby),
        info_row(served),
        *side_rows(model),
    )
    return tuple(replace(row, dialect=A1111, takes_basic=True, tag="a1111") for row in rows)
