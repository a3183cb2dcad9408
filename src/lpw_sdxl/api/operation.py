"""The rows for operating a server: probes, metrics, documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from lpw_sdxl.api.asgi import JSON
from lpw_sdxl.api.dialect import NATIVE
from lpw_sdxl.api.endpoints import READING_METHODS, TEXT, Answer, Backend, Call, Endpoint
from lpw_sdxl.api.error_answer import ErrorAnswer
from lpw_sdxl.api.openapi import write_document
from lpw_sdxl.settings import Settings


async def answer_liveness(_call: Call, _request: Request, backend: Backend) -> Response:
    """Answer whether the process works: 200 or 503."""
    return _answer_probe(is_good=backend.is_alive)


async def answer_ping(_call: Call, _request: Request, backend: Backend) -> Response:
    """Answer a balancer that knows three states: 200 ready, 204 starting, 503 neither."""
    if backend.is_starting:
        return Response(status_code=204)
    return _answer_probe(is_good=backend.is_ready)


async def answer_readiness(_call: Call, _request: Request, backend: Backend) -> Response:
    """Answer whether requests are taken: 200 or 503."""
    return _answer_probe(is_good=backend.is_ready)


def _answer_probe(*, is_good: bool) -> Response:
    return PlainTextResponse("\n") if is_good else NATIVE.response(ErrorAnswer.from_status(503))


PROBES = {
    "/livez": ("Whether the process works; else it has to be started anew.", answer_liveness),
    "/readyz": ("Whether requests are taken.", answer_readiness),
    "/healthz": ("The same as /livez.", answer_liveness),
}

PING = "/ping"
AT_ONCE = 4


def operation_endpoints(settings: Settings) -> tuple[Endpoint, ...]:
    """Build the rows of probes, and those that BentoML itself answers."""
    probes = [
        replace(
            _read_only_row(path, summary, TEXT),
            handler=handler,
            is_direct=True,
            at_once=None,
            statuses=frozenset({500, 503}),
            needs_token=not settings.open_probes,
            takes_any_origin=True,
            is_quiet=True,
        )
        for path, (summary, handler) in PROBES.items()
    ]
    ready = "Requests are taken; 204 while the model is being loaded."
    ping = replace(
        probes[0],
        path=PING,
        summary="Whether requests are taken, are not yet, or are not; never with a token.",
        answer=Answer(ready, (TEXT,), no_content="The model is still being loaded."),
        handler=answer_ping,
        needs_token=False,
    )
    metrics = replace(
        _read_only_row("/metrics", "Prometheus' metrics.", TEXT),
        needs_token=not settings.open_metrics,
        at_once=1,
        is_quiet=True,
    )
    schema = replace(_read_only_row("/schema.json", "For BentoML's clients.", JSON), at_once=1)
    return (*probes, ping, metrics, schema)


def with_document(endpoints: Iterable[Endpoint], *, has_tokens: bool) -> tuple[Endpoint, ...]:
    """Add the row of the OpenAPI document, which describes all rows and itself.

    Args:
        endpoints: all other rows.
        has_tokens: whether the server requires tokens.
    """
    row = _read_only_row("/docs.json", "This document.", JSON)
    rows = (*endpoints, row)
    document = write_document(rows, has_tokens=has_tokens)

    async def answer(_call: Call, _request: Request, _backend: Backend) -> Response:
        return Response(document, media_type=JSON)

    return (*rows[:-1], replace(row, handler=answer))


def _read_only_row(path: str, summary: str, media_type: str) -> Endpoint:
    """Build a row for GET and HEAD."""
    answer = Answer(summary, (media_type,))
    return Endpoint(
        READING_METHODS,
        path,
        summary,
        answer,
        statuses=frozenset({500}),
        needs_engine=False,
        takes_links=True,
        at_once=AT_ONCE,
    )
