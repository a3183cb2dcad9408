"""The events of a stream as bytes: server-sent events whose data is JSON on one line."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NotRequired, Protocol

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.job_answer import Count, JobAnswer, Preview, Seconds
from lpw_sdxl.imaging import MEDIA_TYPES, MediaType, parameters_text

if TYPE_CHECKING:
    from lpw_sdxl.engine import GeneratedImage
    from lpw_sdxl.engine.tracked_job import JobStatus

HEARTBEAT = b": still here\n\n"  # a comment, which is no event


class _Indexed(TypedDict):
    """The part of every event of a batch.

    Attributes:
        index: of the item.
    """

    index: NotRequired[Count]


@with_config(extra="forbid")
class Queued(_Indexed):
    """The place of an accepted request; sent first, and again when it changes."""

    request_id: str
    place: Annotated[int, Field(ge=0, description="Jobs before it that wait to begin.")]
    wait_s: Annotated[Seconds | None, Field(description="Expected until it begins, seconds.")]


@with_config(extra="forbid")
class Progress(_Indexed):
    """The progress of an image."""

    call: Annotated[int, Field(ge=1, description="UNet calls done.")]
    calls: Annotated[int, Field(ge=1, description="UNet calls in all.")]
    step: Annotated[int, Field(ge=0, description="Denoising steps done.")]
    steps: Annotated[int, Field(ge=1, description="Denoising steps in all.")]
    seconds_left: Annotated[Seconds | None, Field(description="Expected.")]
    preview: Preview


@with_config(extra="forbid")
class Made(_Indexed):
    """An image; the last event of its request."""

    seed: Annotated[int, Field(ge=0, le=2**64 - 1, description="Makes the same image again.")]
    width: Annotated[int, Field(ge=1, description="Pixels.")]
    height: Annotated[int, Field(ge=1, description="Pixels.")]
    media_type: MediaType
    parameters: Annotated[str, Field(description="How it was made, in A1111's layout.")]
    image: Annotated[
        str,
        Field(description="The file, in base64.", json_schema_extra={"contentEncoding": "base64"}),
    ]


@with_config(extra="forbid")
class ErrorDetail(TypedDict):
    """An error, as every answer has it."""

    code: str
    message: str
    field: str | None


@with_config(extra="forbid")
class Failed(_Indexed):
    """An error; the last event of its request."""

    error: ErrorDetail


StreamData = Queued | Progress | Made | Failed
"""The data of the events `queued`, `progress`, `image` and `error`."""


class EventWriter(Protocol):
    """The events of a stream in the shape of one API; of one stream, so that it may count.

    `index` is of the item of a batch, and None for an image that is alone.
    """

    def queued(self, status: JobStatus, index: int | None) -> bytes | None:
        """Write where a job waits; None for no event."""

    def progress(self, status: JobStatus, preview: str | None, index: int | None) -> bytes | None:
        """Write how far a job is; None for no event."""

    def image(self, image: GeneratedImage, content: bytes, index: int | None) -> bytes:
        """Write a finished image; CPU work of milliseconds, called in a thread."""

    def error(self, answer: ErrorAnswer, index: int | None) -> bytes:
        """Write an error."""


class NativeEvents:
    """Our own events."""

    def queued(self, status: JobStatus, index: int | None) -> bytes:
        """Write where a job waits; one that has begun already waits for nothing."""
        return queued_event(status, index)

    def progress(self, status: JobStatus, preview: str | None, index: int | None) -> bytes:
        """Write how far a job is."""
        return progress_event(status, preview, index)

    def image(self, image: GeneratedImage, content: bytes, index: int | None) -> bytes:
        """Write a finished image."""
        return image_event(image, content, index)

    def error(self, answer: ErrorAnswer, index: int | None) -> bytes:
        """Write an error, in our own shape."""
        return error_event(answer, index)


def queued_event(status: JobStatus, index: int | None) -> bytes:
    """Write where a job waits; one that has begun already waits for nothing."""
    job = JobAnswer.of(status)
    is_waiting = job.place is not None
    data: Queued = {
        "request_id": job.request_id,
        "place": job.place or 0,
        "wait_s": job.wait_s if is_waiting else 0.0,
    }
    return _write("queued", data, index)


def progress_event(status: JobStatus, preview: str | None, index: int | None) -> bytes:
    """Write how far a job is.

    Args:
        status: of the job.
        preview: in base64, if there is a new one.
        index: of the item of a batch.
    """
    job = JobAnswer.of(status)
    data: Progress = {
        "call": job.call,
        "calls": job.calls,
        "step": job.step,
        "steps": job.steps,
        "seconds_left": job.seconds_left,
        "preview": preview,
    }
    return _write("progress", data, index)


def image_event(image: GeneratedImage, content: bytes, index: int | None) -> bytes:
    """Write a finished image; CPU work of milliseconds, for a thread.

    Args:
        image: the image.
        content: its file.
        index: of the item of a batch.
    """
    record = image.record
    data: Made = {
        "seed": record.seed,
        "width": image.size.width,
        "height": image.size.height,
        "media_type": MEDIA_TYPES[record.request.image_format],
        "parameters": parameters_text(record),
        "image": base64.b64encode(content).decode(),
    }
    return _write("image", data, index)


def error_event(answer: ErrorAnswer, index: int | None) -> bytes:
    """Write an error, in our own shape."""
    return _write("error", {"error": answer.detail()}, index)


def _write(name: str, data: Mapping[str, object], index: int | None) -> bytes:
    whole = data if index is None else {"index": index, **data}
    return f"event: {name}\ndata: {json.dumps(whole)}\n\n".encode()
