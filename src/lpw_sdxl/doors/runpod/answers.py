"""The outputs of jobs, and their errors, in the form that RunPod's loop takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.image_set import MadeImage
from lpw_sdxl.errors import LpwSdxlError

ERROR = "error"
"""The key that makes an output one of a job that failed; its value has to be a text."""


class DeliveryError(Exception):
    """Images that were made and can't be handed over.

    Args:
        code: stable machine-readable name.
        message: one sentence for a person, without a secret.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class FinishedImage(MadeImage):
    """An image and its file.

    Attributes:
        parameters: how it was made, in A1111's layout.
    """

    parameters: str


def write_output(images: Sequence[FinishedImage], places: Sequence[dict[str, str]]) -> Any:
    """Write the output of a job that is done.

    Args:
        images: in their order.
        places: of each, `{"image": BASE64}` or `{"url": LINK}`.
    """
    return {
        "images": [
            {
                **place,
                "seed": image.seed,
                "width": image.size.width,
                "height": image.size.height,
                "media_type": image.media_type,
                "parameters": image.parameters,
            }
            for image, place in zip(images, places, strict=True)
        ]
    }


def write_failure(error: Exception) -> dict[str, str]:
    """Write the output of a job that failed.

    RunPod's loop keeps nothing of a failure but one text, so that is JSON: code, message, field,
    and `retry_after_s` where a later try may succeed.
    """
    if isinstance(error, DeliveryError):
        detail: dict[str, object] = {"code": error.code, "message": error.message, "field": None}
        return {ERROR: json.dumps(detail)}
    if isinstance(error, LpwSdxlError):
        answer = ErrorAnswer.from_error(error)
    else:
        answer = ErrorAnswer.from_status(500)
    detail = {**answer.detail()}
    if "retry-after" in answer.headers:
        detail["retry_after_s"] = int(answer.headers["retry-after"])
    return {ERROR: json.dumps(detail)}
