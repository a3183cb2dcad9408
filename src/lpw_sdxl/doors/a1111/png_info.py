"""The text of a picture, as A1111 reads it: whole, and taken apart. CPU work for a thread."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, with_config
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.bounded_pool import BoundedPool
from lpw_sdxl.api.endpoints import (
    Answer,
    Backend,
    Body,
    Call,
    Endpoint,
    HeadCheck,
    Payload,
    take_request,
)
from lpw_sdxl.api.example_picture import EXAMPLE_PICTURE
from lpw_sdxl.doors.a1111.answering import API, PICTURE_BYTES, answer_json
from lpw_sdxl.doors.a1111.bodies import SMALL_BYTES, read_object
from lpw_sdxl.doors.door import ServedDoor
from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.imaging.containers.png_texts import read_png_texts
from lpw_sdxl.imaging.containers.recognition import read_container
from lpw_sdxl.imaging.png import SIGNATURE
from lpw_sdxl.parameters.foreign import FOREIGN_KEYWORDS
from lpw_sdxl.parameters.picture_reader import KEYWORD, read_picture
from lpw_sdxl.parameters.text_reader import read_text
from lpw_sdxl.request_limits import RequestLimits
from lpw_sdxl.request_reading import largest_picture_bytes

IMAGE = "image"
MOST = 64  # pictures read or waiting
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")
# What A1111 adds to a text that leaves it out.
_DEFAULTS: Mapping[str, Any] = {"Clip skip": "1", "Schedule type": "Automatic"}


class PictureFields(BaseModel):
    """A picture whose text is read."""

    model_config = ConfigDict(extra="ignore")

    image: Annotated[Any, Field(description="Its file, in base64 or as a data URL.")]


@with_config(extra="forbid")
class PngInfo(TypedDict):
    """A picture's text."""

    info: Annotated[str, Field(description="As it stands in the file; empty where none does.")]
    items: Annotated[dict[str, str], Field(description="All texts of the file by their names.")]
    parameters: Annotated[
        dict[str, str], Field(description="The text taken apart; of a size, both sides.")
    ]


@dataclass(frozen=True)
class Picture:
    """A picture's file."""

    content: bytes


def info_row(served: ServedDoor) -> Endpoint:
    """Build the row."""
    limits = served.limits.request
    return Endpoint(
        ("POST",),
        f"{API}/png-info",
        "Read the text that a picture holds of how it was made.",
        Answer("The text, whole and taken apart.", (JSON,), PngInfo),
        body=Body(
            partial(parse_picture, limits=limits),
            largest_picture_bytes(limits) + SMALL_BYTES,
            PictureFields,
            {"image": EXAMPLE_PICTURE},
            head_check=HeadCheck.TOLERANT,
            parsed_bytes=PICTURE_BYTES,
        ),
        handler=InfoReader().answer,
        statuses=frozenset({429, 500}),
    )


def parse_picture(payload: Payload, limits: RequestLimits) -> Picture:
    """Read a picture.

    Raises:
        InvalidRequestError: there is none.
    """
    content = read_object(payload.content, (IMAGE,), limits.max_image_bytes).get(IMAGE)
    if not isinstance(content, bytes):
        raise InvalidRequestError(
            "image is missing; the picture's file in base64 would be right", field=IMAGE
        )
    return Picture(content)


def read_info(picture: Picture) -> PngInfo:
    """Read the text of a picture; one without a text has an empty one, as there.

    Raises:
        InvalidRequestError: it is no picture.
    """
    content = picture.content
    read_container(content, IMAGE)
    is_png = content.startswith(SIGNATURE)
    items = read_png_texts(content, FOREIGN_KEYWORDS).by_keyword if is_png else {}
    try:
        info = read_picture(content, IMAGE)
    except InvalidRequestError:
        return {"info": "", "items": items, "parameters": {}}
    return {"info": info, "items": {KEYWORD: info, **items}, "parameters": take_apart(info)}


def take_apart(info: str) -> dict[str, str]:
    """Take a text apart by A1111's names: prompts, and each value of the last line.

    Args:
        info: not empty.
    """
    written = read_text(info, IMAGE)
    parts = {"Prompt": written.prompt, "Negative prompt": written.negative_prompt}
    for key, value in written.pairs:
        if found := _SIZE.fullmatch(value):
            parts[f"{key}-1"], parts[f"{key}-2"] = found[1], found[2]
        else:
            parts[key] = value
    return {**_DEFAULTS, **parts}


class InfoReader:
    """The answers with pictures' texts."""

    def __init__(self) -> None:
        self._pool = BoundedPool("pictures' texts", most=MOST)

    async def answer(self, _call: Call, request: Request, _backend: Backend) -> Response:
        """Answer with a picture's text."""
        picture = take_request(request.scope, Picture)
        reading = self._pool.run(partial(read_info, picture))
        del picture
        return answer_json(await reading)
