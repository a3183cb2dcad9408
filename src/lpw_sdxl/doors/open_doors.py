"""The rows of the doors that are open, and the shape of errors at their other paths."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.dialect import NATIVE, ErrorDialect
from lpw_sdxl.api.endpoints import TEXT, Answer, Backend, Call, Endpoint
from lpw_sdxl.doors.a1111.endpoints import PREFIXES, a1111_endpoints
from lpw_sdxl.doors.a1111.errors import A1111
from lpw_sdxl.doors.door import Door, ServedDoor
from lpw_sdxl.doors.names import DoorName
from lpw_sdxl.doors.openai.endpoints import PREFIX, openai_endpoints
from lpw_sdxl.doors.openai.errors import OPENAI
from lpw_sdxl.doors.page.endpoints import page_endpoints

DOORS: Mapping[DoorName, Door] = {
    DoorName.OPENAI: Door(openai_endpoints, (f"{PREFIX}/", "/images/"), OPENAI),
    DoorName.A1111: Door(a1111_endpoints, PREFIXES, A1111),
    DoorName.PAGE: Door(page_endpoints, (), NATIVE),
}
OPTIONS = "OPTIONS"
OPTIONS_AT_ONCE = 4


def door_endpoints(names: Collection[DoorName], served: ServedDoor) -> tuple[Endpoint, ...]:
    """Build the rows of the doors of some names; every path answers OPTIONS, too."""
    rows = tuple(row for name in names for row in DOORS[name].endpoints(served))
    return (*rows, *_options_of(rows))


def door_dialects(names: Collection[DoorName]) -> dict[str, ErrorDialect]:
    """Return the dialect of errors by the beginning of a path, for the doors of some names."""
    return {prefix: DOORS[name].dialect for name in names for prefix in DOORS[name].prefixes}


def _options_of(rows: Iterable[Endpoint]) -> Iterator[Endpoint]:
    """Build a row for OPTIONS at each path: clients ask by it whether the path is there."""
    methods: dict[str, list[str]] = {}
    dialects = {}
    for row in rows:
        methods.setdefault(row.path, []).extend(row.methods)
        dialects[row.path] = row.dialect
    for path, taken in methods.items():
        yield Endpoint(
            (OPTIONS,),
            path,
            "Whether the path is there, and its methods.",
            Answer("It is.", (TEXT,)),
            handler=_AnswerOptions(", ".join((*taken, OPTIONS))),
            dialect=dialects[path],
            needs_token=False,
            at_once=OPTIONS_AT_ONCE,
            is_documented=False,
        )


class _AnswerOptions:
    """A handler that lists the methods of a path.

    Args:
        allowed: as the Allow header lists them.
    """

    def __init__(self, allowed: str) -> None:
        self._allowed = allowed

    async def __call__(self, _call: Call, _request: Request, _backend: Backend) -> Response:
        return Response(status_code=200, media_type=TEXT, headers={"allow": self._allowed})
