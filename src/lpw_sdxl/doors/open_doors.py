"""The rows of the doors that are open, and the shape of errors at their other paths."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lpw_sdxl.api.dialect import NATIVE, ErrorDialect
from lpw_sdxl.api.endpoints import Endpoint
from lpw_sdxl.doors.door import Door, ServedDoor
from lpw_sdxl.doors.names import DoorName
from lpw_sdxl.doors.openai.endpoints import PREFIX, openai_endpoints
from lpw_sdxl.doors.openai.errors import OPENAI
from lpw_sdxl.doors.page.endpoints import page_endpoints

DOORS: Mapping[DoorName, Door] = {
    DoorName.OPENAI: Door(openai_endpoints, (f"{PREFIX}/", "/images/"), OPENAI),
    DoorName.PAGE: Door(page_endpoints, (), NATIVE),
}


def door_endpoints(names: Collection[DoorName], served: ServedDoor) -> tuple[Endpoint, ...]:
    """Build the rows of the doors of some names."""
    return tuple(row for name in names for row in DOORS[name].endpoints(served))


def door_dialects(names: Collection[DoorName]) -> dict[str, ErrorDialect]:
    """Return the dialect of errors by the beginning of a path, for the doors of some names."""
    return {prefix: DOORS[name].dialect for name in names for prefix in DOORS[name].prefixes}
