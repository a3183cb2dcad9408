"""The progress of a client's own jobs in A1111's words; pure functions of their states.

A1111 knows one job at a time, on the whole server. Here a client's images under way are one job, of
so many images: those that ended since the oldest of them came count too, so that it goes forward.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from lpw_sdxl.doors.a1111.task_names import name_job

if TYPE_CHECKING:
    from lpw_sdxl.engine.tracked_job import JobStatus

BEGUN = 0.01  # of a job that has just begun, in A1111
ONE_IMAGE = "scripts_txt2img"
NO_TIMESTAMP = "0"
WAITING = "Waiting..."
NO_PREVIEW_YET = -1
_INDEX = re.compile(r"-[0-9]{1,4}")
Base64 = Annotated[
    str | None,
    Field(
        description="A small JPEG of the expected image, in base64.",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]


@with_config(extra="forbid")
class StateAnswer(TypedDict):
    """The state of the client's images under way."""

    skipped: bool
    interrupted: bool
    stopping_generation: bool
    job: Annotated[str, Field(description="Empty where there is none.")]
    job_count: Annotated[int, Field(ge=0, description="Images; 0 where none is under way.")]
    job_timestamp: str
    job_no: Annotated[int, Field(ge=0, description="Of them done.")]
    sampling_step: Annotated[int, Field(ge=0, description="Of the first image that runs.")]
    sampling_steps: Annotated[int, Field(ge=0, description="Likewise.")]


@with_config(extra="forbid")
class ProgressAnswer(TypedDict):
    """The progress of the client's own images."""

    progress: Annotated[float, Field(ge=0, le=1, description="0 where none is under way.")]
    eta_relative: Annotated[float, Field(ge=0, description="Seconds left, as expected.")]
    state: StateAnswer
    current_image: Base64
    textinfo: str | None


@with_config(extra="forbid")
class TaskAnswer(TypedDict):
    """The progress of one request, by the name that its client gave it."""

    active: bool
    queued: bool
    completed: bool
    progress: float | None
    eta: float | None
    live_preview: Annotated[str | None, Field(description="A data URL.")]
    id_live_preview: int
    textinfo: str | None


@with_config(extra="forbid")
class PendingTasks(TypedDict):
    """The client's own jobs that have not begun."""

    size: int
    tasks: list[str]


@dataclass(frozen=True)
class Activity:
    """A client's images under way, and those that ended since the oldest of them came.

    Attributes:
        under_way: oldest first.
        ended: likewise.
        waiting: images that wait for room in the queue.
    """

    under_way: tuple[JobStatus, ...]
    ended: tuple[JobStatus, ...]
    waiting: int = 0

    @classmethod
    def of(cls, statuses: Sequence[JobStatus], waiting: int = 0) -> Activity:
        """Collect them from all of a client's jobs, oldest first, and from the count of others."""
        under_way = tuple(one for one in statuses if one.is_under_way)
        oldest_s = max((one.age_s for one in under_way), default=0.0)
        ended = tuple(one for one in statuses if one.ended_s is not None and one.ended_s < oldest_s)
        return cls(under_way, ended, waiting)

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is under way."""
        return not (self.under_way or self.waiting)

    @property
    def current(self) -> JobStatus | None:
        """Return the first image that runs; None where none does."""
        running = (one for one in self.under_way if one.unet_calls_done)
        return next(running, None)

    @property
    def count(self) -> int:
        """Count the images."""
        return len(self.under_way) + len(self.ended) + self.waiting

    @property
    def share(self) -> float:
        """Compute the share that is done, 0 to 1."""
        shares = (one.unet_calls_done / max(1, one.unet_calls) for one in self.under_way)
        return (len(self.ended) + sum(shares)) / self.count

    @property
    def seconds_left(self) -> float:
        """Estimate the seconds until all are done; 0 where nothing is known."""
        seconds = ((one.wait_s or 0.0) + (one.seconds_left or 0.0) for one in self.under_way)
        return max(seconds, default=0.0)

    @property
    def age_s(self) -> float:
        """Return the seconds since the oldest image under way came."""
        return max((one.age_s for one in self.under_way), default=0.0)

    @property
    def text(self) -> str | None:
        """Return a text for a person while nothing is drawn; None else."""
        if self.current is not None:
            return None
        place = self.under_way[0].place if self.under_way else None
        return WAITING if place is None else f"In queue: {place + 1}/{place + self.count}"


def describe_progress(activity: Activity, preview: str | None = None) -> ProgressAnswer:
    """Describe a client's activity; of none all is zero.

    Args:
        activity: of the client.
        preview: of the current image, in base64.
    """
    if activity.is_idle:
        return {
            "progress": 0.0,
            "eta_relative": 0.0,
            "state": _state(),
            "current_image": None,
            "textinfo": None,
        }
    current, ended = activity.current, len(activity.ended)
    return {
        "progress": min(1.0, BEGUN + activity.share),
        "eta_relative": round(activity.seconds_left, 3),
        "state": _state(
            f"Batch {ended + 1} out of {activity.count}" if activity.count > 1 else ONE_IMAGE,
            activity.count,
            ended,
            time.strftime("%Y%m%d%H%M%S", time.localtime(time.time() - activity.age_s)),
            current,
        ),
        "current_image": preview,
        "textinfo": activity.text,
    }


def find_task(statuses: Sequence[JobStatus], task_id: str) -> list[JobStatus]:
    """Find a request's images by the name that its client gave it."""
    name = name_job(task_id)
    return [
        one
        for one in statuses
        if one.request_id == name
        or (
            one.request_id.startswith(name)
            and _INDEX.fullmatch(one.request_id, len(name)) is not None
        )
    ]


def describe_task(
    task: Sequence[JobStatus], preview: str | None = None, preview_number: int = NO_PREVIEW_YET
) -> TaskAnswer:
    """Describe a request's images; one of no known images waits still, as in A1111.

    Args:
        task: its images.
        preview: of the first that runs, in base64; None for none, or for the one that was sent.
        preview_number: of that preview.
    """
    activity = Activity.of(task)
    is_active = activity.current is not None
    is_queued = bool(activity.under_way) and not is_active
    return {
        "active": is_active,
        "queued": is_queued,
        "completed": bool(task) and not activity.under_way,
        "progress": min(1.0, BEGUN + activity.share) if is_active else None,
        "eta": round(activity.seconds_left, 3) if is_active else None,
        "live_preview": f"data:image/jpeg;base64,{preview}" if preview else None,
        "id_live_preview": preview_number,
        "textinfo": activity.text if is_queued else None if task else WAITING,
    }


def list_pending(statuses: Sequence[JobStatus]) -> PendingTasks:
    """List a client's own jobs that have not begun, by their names here."""
    waiting = [one.request_id for one in statuses if one.is_waiting]
    return {"size": len(waiting), "tasks": waiting}


def _state(
    job: str = "",
    count: int = 0,
    done: int = 0,
    timestamp: str = NO_TIMESTAMP,
    current: JobStatus | None = None,
) -> StateAnswer:
    return {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": job,
        "job_count": count,
        "job_timestamp": timestamp,
        "job_no": done,
        "sampling_step": 0 if current is None else current.steps_done,
        "sampling_steps": 0 if current is None else current.steps,
    }
