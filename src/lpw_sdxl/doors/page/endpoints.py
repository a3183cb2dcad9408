"""The rows of the page: /ui, and a row for each of its files."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.endpoints import READING_METHODS, Answer, Backend, Call, Endpoint, Handler
from lpw_sdxl.api.root import PAGE_PATH
from lpw_sdxl.doors.door import ServedDoor
from lpw_sdxl.doors.page.files import INDEX, PageFile, read_files

AT_ONCE = 8


def page_endpoints(_served: ServedDoor) -> tuple[Endpoint, ...]:
    """Build the rows. None needs a token: the page asks for one, and its files are no secret."""
    pages = {file.name: file for file in read_files()}
    index = pages.pop(INDEX)
    rows = [
        _row(PAGE_PATH, index.media_type, _sends(index)),
        _row(f"{PAGE_PATH}/", index.media_type, _leads_to_page),
    ]
    rows += [
        _row(f"{PAGE_PATH}/{name}", file.media_type, _sends(file)) for name, file in pages.items()
    ]
    return tuple(rows)


def _row(path: str, media_type: str, handler: Handler) -> Endpoint:
    return Endpoint(
        READING_METHODS,
        path,
        "A file of the page.",
        Answer("The file.", (media_type,)),
        tag="page",
        handler=handler,
        is_direct=True,  # it costs nothing, and a page must come while images are made
        needs_engine=False,
        needs_token=False,
        takes_any_origin=True,  # a refused page could not say which setting is missing
        at_once=AT_ONCE,
        is_documented=False,
    )


def _sends(file: PageFile) -> Handler:
    async def answer(_call: Call, request: Request, _backend: Backend) -> Response:
        return file.response(request.headers)

    return answer


async def _leads_to_page(_call: Call, _request: Request, _backend: Backend) -> Response:
    """Lead to the address without a slash, from which the page's relative addresses start."""
    return Response(status_code=302, headers={"location": f"..{PAGE_PATH}"})
