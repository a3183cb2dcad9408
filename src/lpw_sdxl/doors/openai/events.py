"""Streams in OpenAI's shape: previews and images, nothing else.

Its clients take an event of any other type for a preview without a picture, so progress and places
in the queue are not sent.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.doors.openai.answers import Usage, describe_images, no_usage, pieces_with_file
from lpw_sdxl.doors.openai.errors import write_error
from lpw_sdxl.doors.openai.translation import ImageOrder
from lpw_sdxl.imaging import MEDIA_TYPES

if TYPE_CHECKING:
    from lpw_sdxl.engine import GeneratedImage
    from lpw_sdxl.engine.tracked_job import JobStatus

PREVIEW_TYPE = "image/jpeg"
GENERATION, EDIT = "image_generation", "image_edit"


@with_config(extra="forbid")
class ImageEvent(TypedDict):
    """A preview or an image."""

    type: Literal[
        "image_generation.partial_image",
        "image_generation.completed",
        "image_edit.partial_image",
        "image_edit.completed",
    ]
    b64_json: Annotated[str, Field(description="The file, in base64; of a preview, a JPEG.")]
    created_at: Annotated[int, Field(ge=0, description="Unix time, seconds.")]
    size: str
    quality: str
    background: str
    output_format: str
    partial_image_index: NotRequired[Annotated[int, Field(ge=0)]]
    image_index: NotRequired[Annotated[int, Field(ge=0, description="Of several images.")]]
    seed: NotRequired[Annotated[int, Field(ge=0, le=2**64 - 1)]]
    usage: NotRequired[Usage]
    warnings: NotRequired[list[str]]


@with_config(extra="forbid")
class ErrorData(TypedDict):
    """An error, as every answer has it."""

    message: str
    type: str
    param: str | None
    code: str


@with_config(extra="forbid")
class ErrorEvent(TypedDict):
    """An error, the last event of its image."""

    error: ErrorData


StreamData = ImageEvent | ErrorEvent
"""The data of all events."""


class ImageEvents:
    """The events of one stream.

    Args:
        order: of its images.
    """

    def __init__(self, order: ImageOrder) -> None:
        self._order = order
        self._noun = EDIT if order.is_edit else GENERATION
        self._sent: Counter[int | None] = Counter()
        request = order.requests[0]
        sides = (request.width, request.height)
        self._size = "auto" if None in sides else "{}x{}".format(*sides)

    def queued(self, status: JobStatus, index: int | None) -> None:
        """Write nothing: there is no such event."""

    def progress(
        self,
        status: JobStatus,  # noqa: ARG002 - as the other writers have it
        preview: str | None,
        index: int | None,
    ) -> bytes | None:
        """Write a preview, of those that were asked for; None for progress without one."""
        number = self._sent[index]
        if preview is None or number >= self._order.partial_images:
            return None
        self._sent[index] += 1
        data = {"b64_json": preview, "partial_image_index": number}
        head, values = self._values("partial_image", data, index, self._size, PREVIEW_TYPE)
        return head + json.dumps(values).encode() + b"\n\n"

    def image(self, image: GeneratedImage, content: bytes, index: int | None) -> bytes:
        """Write a finished image."""
        media_type = MEDIA_TYPES[image.record.request.image_format]
        data: dict[str, Any] = {"seed": image.seed, "usage": no_usage()}
        if self._order.notes:
            data["warnings"] = [*self._order.notes]
        head, values = self._values("completed", data, index, str(image.size), media_type)
        return b"".join([head, *pieces_with_file(values, content), b"\n\n"])

    def error(self, answer: ErrorAnswer, index: int | None) -> bytes:  # noqa: ARG002
        """Write an error, which clients raise; nothing that follows it is read."""
        return f"event: error\ndata: {json.dumps(write_error(answer))}\n\n".encode()

    def _values(
        self, kind: str, data: dict[str, Any], index: int | None, size: str, media_type: str
    ) -> tuple[bytes, dict[str, Any]]:
        """Build the beginning of an event and the values of its data."""
        type_ = f"{self._noun}.{kind}"
        values = {
            "type": type_,
            "created_at": int(time.time()),
            **data,
            **describe_images(self._order, size, media_type),
            **({} if index is None else {"image_index": index}),
        }
        return f"event: {type_}\ndata: ".encode(), values


def preview_interval(order: ImageOrder) -> int:
    """Compute the UNet calls from one preview to the next, so that they are evenly apart.

    Returns:
        0 for no previews.
    """
    if not order.partial_images:
        return 0
    request = order.requests[0]
    share = request.strength if order.is_edit else 1.0
    calls = math.floor(request.num_inference_steps * share)
    return max(1, calls // (order.partial_images + 1))
