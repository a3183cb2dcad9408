"""A job as clients see it: in the answers of /jobs, and in the events of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

if TYPE_CHECKING:
    from lpw_sdxl.engine.tracked_job import JobStatus

Preview = Annotated[
    str | None,
    Field(
        description="A small JPEG of the expected image, in base64.",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class JobAnswer:
    """A job of the client's own."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    request_id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    age_s: Annotated[float, Field(ge=0, description="Seconds since the request came.")]
    place: Annotated[Count | None, Field(description="Jobs before it that wait to begin.")]
    wait_s: Annotated[Seconds | None, Field(description="Expected until it begins, seconds.")]
    call: Annotated[int, Field(ge=0, description="UNet calls done.")]
    calls: Annotated[int, Field(ge=0, description="UNet calls in all.")]
    step: Annotated[int, Field(ge=0, description="Denoising steps done.")]
    steps: Annotated[int, Field(ge=0, description="Denoising steps in all.")]
    seconds_left: Annotated[Seconds | None, Field(description="Expected.")]
    preview: Preview
    error_code: Annotated[str | None, Field(description="Of a job that failed.")]

    @classmethod
    def of(cls, status: JobStatus, preview: str | None = None) -> JobAnswer:
        """Describe a job's status.

        Args:
            status: of the job.
            preview: in base64.
        """
        return cls(
            status.request_id,
            status.state.value,
            round_seconds(status.age_s),
            status.place,
            None if status.wait_s is None else round_seconds(status.wait_s),
            status.unet_calls_done,
            status.unet_calls,
            status.steps_done,
            status.steps,
            None if status.seconds_left is None else round_seconds(status.seconds_left),
            preview,
            status.error_code,
        )


def round_seconds(seconds: float) -> float:
    """Round to milliseconds, and never below 0."""
    return max(0.0, round(seconds, 3))
