"""The rows that enlarge pictures: one, or several in the same way."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, with_config
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.disconnect import cancel_on_disconnect
from lpw_sdxl.api.endpoints import (
    Answer,
    Backend,
    Body,
    Call,
    Endpoint,
    HeadCheck,
    take_request,
)
from lpw_sdxl.api.example_picture import EXAMPLE_PICTURE
from lpw_sdxl.api.together import all_or_none
from lpw_sdxl.doors.a1111.answering import (
    API,
    PICTURE_BYTES,
    document_loosely,
)
from lpw_sdxl.doors.a1111.bodies import SMALL_BYTES
from lpw_sdxl.doors.a1111.extras import (
    IMAGE,
    IMAGE_LIST,
    ExtrasFields,
    parse_batch,
    parse_single,
    place_in_list,
    spelled_as_there,
)
from lpw_sdxl.doors.a1111.lobby import Lobby, Patience
from lpw_sdxl.doors.door import ServedDoor
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.request_reading import largest_picture_bytes
from lpw_sdxl.upscale_request import UpscaleRequest

if TYPE_CHECKING:
    from lpw_sdxl.engine import Engine

_FAILURES = frozenset({409, 429, 500, 503, 504})
File = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


class SingleFields(ExtrasFields):
    """One picture, and what is done to it."""

    image: Annotated[Any, Field(description="Its file, in base64 or as a data URL.")]


class BatchFields(ExtrasFields):
    """Several pictures, and what is done to each."""

    image_list: Annotated[
        Any,
        Field(
            alias=IMAGE_LIST,
            description="A list of objects with `data`, a file in base64 or as a data URL.",
        ),
    ]


@with_config(extra="forbid")
class SingleAnswer(TypedDict):
    """The enlarged picture."""

    html_info: str
    image: File


@with_config(extra="forbid")
class BatchAnswer(TypedDict):
    """The enlarged pictures, in their order."""

    html_info: str
    images: list[File]


def extras_rows(served: ServedDoor, lobby: Lobby) -> Iterator[Endpoint]:
    """Build the rows."""
    enlarger = Enlarger(lobby)
    limits = served.limits.request
    example = {"upscaler_1": "Lanczos", "upscaling_resize": 2}
    yield Endpoint(
        ("POST",),
        f"{API}/extra-single-image",
        "Enlarge a picture, as A1111's extras do.",
        Answer("The picture.", (JSON,), SingleAnswer),
        body=Body(
            partial(parse_single, limits=limits),
            largest_picture_bytes(limits) + SMALL_BYTES,
            document_loosely(SingleFields),
            {**example, "image": EXAMPLE_PICTURE},
            head_check=HeadCheck.TOLERANT,
            parsed_bytes=PICTURE_BYTES,
        ),
        handler=enlarger.answer_single,
        statuses=_FAILURES,
    )
    yield Endpoint(
        ("POST",),
        f"{API}/extra-batch-images",
        "Enlarge several pictures, as A1111's extras do.",
        Answer("The pictures.", (JSON,), BatchAnswer),
        body=Body(
            partial(parse_batch, limits=limits),
            served.limits.max_body_bytes,
            document_loosely(BatchFields),
            {**example, "imageList": [{"data": EXAMPLE_PICTURE, "name": "a.png"}]},
            head_check=HeadCheck.TOLERANT,
            parsed_bytes=PICTURE_BYTES,
        ),
        handler=enlarger.answer_batch,
        statuses=_FAILURES,
    )


@dataclass(frozen=True)
class Enlarger:
    """The answers with enlarged pictures.

    Attributes:
        lobby: where pictures wait for room in the queue.
    """

    lobby: Lobby

    async def answer_single(self, call: Call, request: Request, backend: Backend) -> Response:
        """Answer with an enlarged picture."""
        requests = [take_request(request.scope, UpscaleRequest)]
        enlarging = self._enlarge(backend.engine, requests, call)
        del requests  # they hold their pictures' files
        [file] = await cancel_on_disconnect(request, enlarging)
        return await asyncio.to_thread(lambda: _write("image", _encode(file)))

    async def answer_batch(self, call: Call, request: Request, backend: Backend) -> Response:
        """Answer with several enlarged pictures."""
        requests = take_request(request.scope, list)
        enlarging = self._enlarge(backend.engine, requests, call)
        del requests
        files = await cancel_on_disconnect(request, enlarging)
        return await asyncio.to_thread(lambda: _write("images", [*map(_encode, files)]))

    async def _enlarge(
        self, engine: Engine, requests: Sequence[UpscaleRequest], call: Call
    ) -> list[bytes]:
        """Enlarge pictures concurrently, in their order; the first error ends the others.

        Raises:
            LpwSdxlError: as `Engine.upscale`, with A1111's names of fields.
        """
        is_alone = len(requests) == 1
        patience = Patience(self.lobby, call.owner)

        async def enlarge(one: UpscaleRequest, index: int) -> bytes:
            enlarging = partial(
                engine.upscale,
                one.named(call.request_id if is_alone else call.item_id(index)),
                leaves_room=not is_alone,
                owner=call.owner,
                memory=call.memory,
            )
            del one
            try:
                image = await patience.make(enlarging)
            except LpwSdxlError as error:
                place = IMAGE if is_alone else place_in_list(index)
                raise spelled_as_there(error, place) from None
            del enlarging
            patience.renew()
            return await asyncio.to_thread(image.encode)

        makings = [enlarge(one, index) for index, one in enumerate(requests)]
        del requests
        return await all_or_none(makings)


def _encode(file: bytes) -> str:
    return base64.b64encode(file).decode()


def _write(name: str, value: list[str] | str) -> Response:
    content = json.dumps({"html_info": "", name: value})
    return Response(content, media_type=JSON, headers={"cache-control": "no-store"})
