"""The rows of /jobs: a client's own jobs are listed, shown and cancelled; others do not exist."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.endpoints import READING_METHODS, Answer, Backend, Call, Endpoint, Handler
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.job_answer import JobAnswer

if TYPE_CHECKING:
    from lpw_sdxl.engine.tracked_job import JobKey

AT_ONCE = 4
ONE_JOB = "/jobs/{request_id}"


def job_endpoints(workers: int) -> tuple[Endpoint, ...]:
    """Build the rows.

    Args:
        workers: of this server. Each has jobs of its own, and a client can't choose which one
            answers: with several of them, the rows answer that they need one.
    """
    rows = (
        _row(READING_METHODS, "/jobs", "List your jobs, without their previews.", answer_list),
        _row(
            READING_METHODS,
            ONE_JOB,
            "Describe one of your jobs; its previews are drawn from the first look on.",
            answer_one,
        ),
        _row(("DELETE",), ONE_JOB, "Cancel one of your jobs, and forget it.", answer_cancel),
    )
    if workers == 1:
        return rows
    return tuple(dataclasses.replace(row, handler=_refuse_for(workers)) for row in rows)


async def answer_list(call: Call, _request: Request, backend: Backend) -> Response:
    """Answer with the client's jobs: those that ended within a minute, then those under way."""
    if not call.sees_jobs:
        return _json([])
    jobs = backend.engine.jobs

    def describe() -> Response:
        return _json([vars(JobAnswer.of(status)) for status in jobs.owned_by(call.owner)])

    return await asyncio.to_thread(describe)  # there may be a thousand


async def answer_one(call: Call, _request: Request, backend: Backend) -> Response:
    """Answer with one job and its last preview."""
    status = backend.engine.jobs.find(_key(call), watches=True) if call.sees_jobs else None
    if status is None:
        return _missing(call)
    preview = await backend.previews.make(status.preview)
    return _json(vars(JobAnswer.of(status, preview)))


async def answer_cancel(call: Call, _request: Request, backend: Backend) -> Response:
    """Cancel one job and show it no more; the answer is what it was."""
    status = backend.engine.jobs.cancel(_key(call), forgets=True) if call.sees_jobs else None
    if status is None:
        return _missing(call)
    return _json(vars(JobAnswer.of(status)))


def _key(call: Call) -> JobKey:
    from lpw_sdxl.engine.tracked_job import JobKey  # noqa: PLC0415 - it imports torch

    return JobKey(call.owner, call.parameters["request_id"])


def _row(methods: tuple[str, ...], path: str, summary: str, handler: Handler) -> Endpoint:
    is_list = path == "/jobs"
    return Endpoint(
        methods,
        path,
        summary,
        Answer(
            "Your jobs." if is_list else "The job.",
            (JSON,),
            list[JobAnswer] if is_list else JobAnswer,
        ),
        tag="jobs",
        handler=handler,
        statuses=frozenset({404, 500}),
        at_once=AT_ONCE,
    )


def _refuse_for(workers: int) -> Handler:
    async def refuse(call: Call, _request: Request, _backend: Backend) -> Response:
        message = f"/jobs needs one worker, and this server has {workers} (LPW_SDXL_WORKERS)"
        return call.endpoint.dialect.response(ErrorAnswer(404, "not_found", message))

    return refuse


def _missing(call: Call) -> Response:
    message = (
        "this server has no job of yours with this request_id; one that ended is kept for a minute;"
        " without tokens, jobs are shown under an address or a local name only"
    )
    return call.endpoint.dialect.response(ErrorAnswer(404, "not_found", message))


def _json(value: object) -> Response:
    return Response(json.dumps(value), media_type=JSON, headers={"cache-control": "no-store"})
