"""The events of a stream as bytes: server-sent events whose data is JSON on one line."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from lpw_sdxl.api.asgi import JsonObject
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.job_answer import JobAnswer
from lpw_sdxl.imaging import MEDIA_TYPES, parameters_text

if TYPE_CHECKING:
    from lpw_sdxl.engine import GeneratedImage
    from lpw_sdxl.engine.job_registry import JobStatus

HEARTBEAT = b": still here\n\n"  # a comment, which is no event


def queued_event(status: JobStatus, index: int | None) -> bytes:
    """Write where a job waits; one that has begun already waits for nothing."""
    job = JobAnswer.of(status)
    is_waiting = job.place is not None
    data = {
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
    data = {
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
    data = {
        "seed": record.seed,
        "width": record.size.width,
        "height": record.size.height,
        "media_type": MEDIA_TYPES[record.request.image_format],
        "parameters": parameters_text(record),
        "image": base64.b64encode(content).decode(),
    }
    return _write("image", data, index)


def error_event(answer: ErrorAnswer, index: int | None) -> bytes:
    """Write an error, in our own shape."""
    return _write("error", {"error": answer.detail()}, index)


def _write(name: str, data: JsonObject, index: int | None) -> bytes:
    whole = data if index is None else {"index": index, **data}
    return f"event: {name}\ndata: {json.dumps(whole)}\n\n".encode()
