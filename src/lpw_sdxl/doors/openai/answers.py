"""Our images as OpenAI's answers, and the types of these for the document."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.image_set import MadeImage
from lpw_sdxl.doors.openai.translation import ImageOrder
from lpw_sdxl.doors.openai.wishes import QUALITY_SHARES

_USUAL_QUALITY = "medium"
Tokens = Annotated[int, Field(ge=0, description="Always 0: images are not counted in tokens.")]


@with_config(extra="forbid")
class TokenDetails(TypedDict):
    """The parts of `input_tokens`."""

    text_tokens: Tokens
    image_tokens: Tokens


@with_config(extra="forbid")
class Usage(TypedDict):
    """The use of tokens, for clients that read it."""

    total_tokens: Tokens
    input_tokens: Tokens
    output_tokens: Tokens
    input_tokens_details: TokenDetails


@with_config(extra="forbid")
class AnsweredImage(TypedDict):
    """One image: its file, or where that is."""

    b64_json: NotRequired[Annotated[str, Field(description="The file, in base64.")]]
    url: NotRequired[Annotated[str, Field(description="Where the file is, for an hour.")]]
    seed: Annotated[int, Field(ge=0, le=2**64 - 1, description="Makes the same image again.")]


@with_config(extra="forbid")
class ImagesAnswer(TypedDict):
    """The images of one request."""

    created: Annotated[int, Field(ge=0, description="Unix time, seconds.")]
    data: list[AnsweredImage]
    model: Annotated[str, Field(description="The model that drew, whatever name was sent.")]
    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    quality: str
    size: Annotated[str, Field(description="Such as 1024x1024, width first.")]
    usage: Usage
    warnings: NotRequired[
        Annotated[list[str], Field(description="What was not honoured, in sentences.")]
    ]


def no_usage() -> Usage:
    """Return a use of no tokens."""
    details: TokenDetails = {"text_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "input_tokens_details": details,
    }


def describe_images(order: ImageOrder, size: str, media_type: str) -> dict[str, Any]:
    """Return what answers and events state of their images.

    Args:
        order: of the images.
        size: such as `1024x1024`.
        media_type: of the files.
    """
    return {
        "size": size,
        "quality": order.quality if order.quality in QUALITY_SHARES else _USUAL_QUALITY,
        "background": "opaque",
        "output_format": media_type.rpartition("/")[2],
    }


def write_answer(
    order: ImageOrder,
    images: Sequence[MadeImage],
    model: str,
    link: Callable[[MadeImage], str],
) -> bytes:
    """Write the answer for some images, an `ImagesAnswer`; CPU work of milliseconds each.

    Args:
        order: of the images.
        images: at least one.
        model: that drew them.
        link: returns the URL of an image, where the answer has URLs.
    """
    first = images[0]
    answer = {
        "created": int(time.time()),
        "model": model,
        **describe_images(order, str(first.size), first.media_type),
        "usage": no_usage(),
        **({"warnings": [*order.notes]} if order.notes else {}),
    }
    pieces = [b'{"data": [']
    for image in images:
        if order.has_links:
            pieces.append(json.dumps({"url": link(image), "seed": image.seed}).encode())
        else:
            pieces += pieces_with_file({"seed": image.seed}, image.content)
        pieces.append(b", ")
    pieces[-1] = b"], " + json.dumps(answer).encode()[1:]
    return b"".join(pieces)


def pieces_with_file(values: Mapping[str, Any], content: bytes) -> list[bytes]:
    """Write a JSON object that has a file in base64 as `b64_json`, and some other values.

    `json` would look at each letter of the base64 for what has to be escaped, which takes 5 ms a
    megabyte; there is nothing in it. It is left in pieces, to be copied once.
    """
    rest = json.dumps(values).encode()[1:]
    return [b'{"b64_json": "', base64.b64encode(content), b'", ' + rest]


def encode(content: bytes) -> str:
    """Encode a file in base64."""
    return base64.b64encode(content).decode()
