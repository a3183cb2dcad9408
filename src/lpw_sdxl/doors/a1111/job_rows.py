"""The rows of a client's own jobs: progress, interrupt, skip; others' jobs do not exist."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.asgi import JSON, Scope
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
from lpw_sdxl.doors.a1111.answering import (
    API,
    AT_ONCE,
    answer_json,
    command_row,
    document_loosely,
    get_row,
)
from lpw_sdxl.doors.a1111.bodies import read_model, read_object
from lpw_sdxl.doors.a1111.lobby import Lobby
from lpw_sdxl.doors.a1111.progress import (
    NO_PREVIEW_YET,
    Activity,
    PendingTasks,
    ProgressAnswer,
    TaskAnswer,
    describe_progress,
    describe_task,
    find_task,
    list_pending,
)

if TYPE_CHECKING:
    from lpw_sdxl.engine.tracked_job import JobStatus

SKIPS_IMAGE = "skip_current_image"
MAX_TASK_BYTES = 16 * 1024
MAX_QUERY_FIELDS = 32
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


def _whole(value: Any) -> Any:
    """Take a number's whole part, also of a text; anything else is left to be refused."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class TaskRequest(BaseModel):
    """A question about one request, by the name that its client gave it."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    id_task: Annotated[str, Field(max_length=1024)] = ""
    id_live_preview: Annotated[int, BeforeValidator(_whole)] = NO_PREVIEW_YET
    live_preview: bool = True


def job_rows(lobby: Lobby) -> Iterator[Endpoint]:
    """Build the rows."""
    jobs = OwnJobs(lobby)
    yield get_row(
        f"{API}/progress", "The progress of your own images.", ProgressAnswer, jobs.answer_progress
    )
    yield command_row(
        f"{API}/interrupt",
        "End your own images; each is answered as far as it is.",
        dict[str, str],
        jobs.answer_interrupt,
    )
    yield command_row(
        f"{API}/skip",
        "End your own images that are being drawn; those that wait are drawn.",
        type(None),
        jobs.answer_skip,
    )
    yield Endpoint(
        ("POST",),
        "/internal/progress",
        "The progress of one request, by the force_task_id that it had.",
        Answer("Its progress.", (JSON,), TaskAnswer),
        body=Body(
            _parse_task,
            MAX_TASK_BYTES,
            document_loosely(TaskRequest),
            {"id_task": "a-name-of-mine", "id_live_preview": -1, "live_preview": False},
            head_check=HeadCheck.TOLERANT,
            is_required=False,
        ),
        handler=jobs.answer_task,
        statuses=frozenset({500}),
        at_once=AT_ONCE,
    )
    yield get_row(
        "/internal/pending-tasks",
        "Your own images that wait.",
        PendingTasks,
        jobs.answer_pending,
    )


@dataclass(frozen=True)
class OwnJobs:
    """The answers about a client's own images; without the right to see any, there are none.

    Attributes:
        lobby: has those that wait for room in the queue.
    """

    lobby: Lobby

    async def answer_progress(self, call: Call, request: Request, backend: Backend) -> Response:
        """Answer with the progress of the client's images, and a preview of the first one."""
        activity = Activity.of(await _jobs(call, backend), self._waiting(call))
        current = None if _skips_image(request.scope) else activity.current
        return answer_json(describe_progress(activity, await _preview(call, backend, current)))

    async def answer_interrupt(self, call: Call, _request: Request, backend: Backend) -> Response:
        """End all of the client's images."""
        self.lobby.stop(call.owner)
        backend.engine.jobs.stop(call.owner)
        return answer_json({})

    async def answer_skip(self, call: Call, _request: Request, backend: Backend) -> Response:
        """End the client's images that have begun."""
        backend.engine.jobs.stop(call.owner, spares_waiting=True)
        return answer_json(None)

    async def answer_task(self, call: Call, request: Request, backend: Backend) -> Response:
        """Answer with the progress of one request."""
        asked = take_request(request.scope, TaskRequest)
        task = find_task(await _jobs(call, backend), asked.id_task) if asked.id_task else []
        current = Activity.of(task).current
        if current is None or not asked.live_preview:
            return answer_json(describe_task(task))
        number = sum(one.unet_calls_done for one in task)
        preview = await _preview(call, backend, current)
        is_new = preview is not None and number != asked.id_live_preview
        return answer_json(describe_task(task, preview if is_new else None, number))

    async def answer_pending(self, call: Call, _request: Request, backend: Backend) -> Response:
        """Answer with the client's images that wait."""
        return answer_json(list_pending(await _jobs(call, backend)))

    def _waiting(self, call: Call) -> int:
        return self.lobby.count(call.owner) if call.sees_jobs else 0


async def _jobs(call: Call, backend: Backend) -> list[JobStatus]:
    """List the client's own jobs; none where it may not see any."""
    if not call.sees_jobs:
        return []
    found: list[JobStatus] = await asyncio.to_thread(backend.engine.jobs.owned_by, call.owner)
    return found


async def _preview(call: Call, backend: Backend, job: JobStatus | None) -> str | None:
    """Draw a job's last preview, in base64; from the first look on they are made."""
    if job is None:
        return None
    from lpw_sdxl.engine.tracked_job import JobKey  # noqa: PLC0415 - it imports torch

    status = backend.engine.jobs.find(JobKey(call.owner, job.request_id), watches=True)
    preview: str | None = await backend.previews.make(None if status is None else status.preview)
    return preview


def _skips_image(scope: Scope) -> bool:
    """Return whether the query asks for no preview; a query that can't be read asks for one."""
    try:
        text = scope.get("query_string", b"").decode("latin-1")
        fields = parse_qsl(text, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        return False
    return any(name == SKIPS_IMAGE and value.lower() in _TRUE for name, value in fields)


def _parse_task(payload: Payload) -> TaskRequest:
    return read_model(TaskRequest, read_object(payload.content))
