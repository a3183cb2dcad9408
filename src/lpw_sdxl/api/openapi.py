"""The OpenAPI document, made once at start from the types and limits that are in force.

BentoML's own lists four statuses and no limit. This one holds every status that an operation can
answer, with the codes of its errors, and the request's schema as this server's settings bound it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from lpw_sdxl import __version__
from lpw_sdxl.api.openapi_errors import HEAD_STATUSES, error_codes, error_responses, guard_statuses
from lpw_sdxl.api.openapi_schemas import (
    IMAGE_MEDIA_TYPES,
    ServedLimits,
    component_schemas,
    example_request,
    seed_header,
)

JsonObject = dict[str, Any]

OPENAPI_VERSION = "3.1.0"  # whose schemas are JSON Schema's, as pydantic writes them
PROBES = {
    "/livez": "Whether the process works; else it has to be started anew.",
    "/readyz": "Whether requests are taken.",
    "/healthz": "The same as /livez.",
}
_DESCRIPTION = (
    "Makes pictures from prompts of any length, many requests at a time. Every error is"
    ' `{"error": {"code", "message", "field"}}`; the codes are stable. Beside what each operation'
    " lists: a path that is not here is a 404, and a path that is here a 405 for other methods,"
    " with `Allow`."
)


@dataclass(frozen=True)
class Border:
    """What of the server is not in its endpoints.

    Attributes:
        needs_token: whether a request has to bring one.
        open_paths: that need none all the same.
    """

    needs_token: bool = False
    open_paths: Collection[str] = frozenset(PROBES)


@dataclass(frozen=True)
class _Operation:
    """One endpoint that takes JSON by POST.

    Attributes:
        summary: one line.
        request: name of the request's schema.
        example: of a request, and works.
        success: the response of status 200.
        statuses: of its own errors, beside those of the guard.
    """

    summary: str
    request: str
    example: JsonObject
    success: JsonObject
    statuses: frozenset[int]


def write_document(limits: ServedLimits, border: Border) -> bytes:
    """Write the OpenAPI document as JSON.

    Args:
        limits: in force.
        border: whether and where tokens are needed.
    """
    return json.dumps(_document(limits, border)).encode()


def _document(limits: ServedLimits, border: Border) -> JsonObject:
    posts = {
        path: {"post": _post(path, operation, border)}
        for path, operation in _operations(limits).items()
    }
    gets = {path: {"get": operation} for path, operation in _gets(border).items()}
    components: JsonObject = {
        "schemas": component_schemas(limits),
        "responses": error_responses(has_tokens=border.needs_token),
    }
    if border.needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "LPW-SDXL", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "."}],
        "tags": [{"name": "images"}, {"name": "operation"}],
        "paths": {**posts, **gets},
        "components": components,
    }


def _operations(limits: ServedLimits) -> dict[str, _Operation]:
    example = example_request(limits)
    return {
        "/generate": _Operation(
            "Make one image; the answer is its file.",
            "GenerationRequest",
            example,
            {
                "description": "The image's file.",
                "headers": {"x-seed": seed_header()},
                "content": {
                    media_type: {"schema": {"type": "string", "format": "binary"}}
                    for media_type in IMAGE_MEDIA_TYPES
                },
            },
            frozenset({400, 408, 429, 500, 503, 504}),
        ),
        "/generate_batch": _Operation(
            "Make several images; a bad item is an error in its place and spoils no other.",
            "BatchRequest",
            {"requests": [example]},
            _json_success("An answer for each request, in their order.", "BatchAnswer"),
            frozenset({400, 408, 500, 504}),
        ),
        "/inspect_prompt": _Operation(
            "Say what the server makes of a prompt: spans, weights, tokens, chunks, warnings.",
            "InspectionRequest",
            {"prompt": "a (red:1.3) fox BREAK deep snow"},
            _json_success("How both prompts are read.", "PromptExplanation"),
            frozenset({400, 408, 500, 504}),
        ),
        "/info": _Operation(
            "Say what is served: model, device, limits, schedulers, and what the engine has done.",
            "InfoRequest",
            {},
            _json_success("What is served.", "InfoAnswer"),
            frozenset({400, 408, 500, 504}),
        ),
    }


def _post(path: str, operation: _Operation, border: Border) -> JsonObject:
    name = path.removeprefix("/")
    media: JsonObject = {
        "schema": _schema_reference(operation.request),
        "example": operation.example,
    }
    return {
        "tags": ["images"],
        "operationId": name,
        "summary": operation.summary,
        "requestBody": {"required": True, "content": {"application/json": media}},
        "responses": {
            "200": operation.success,
            **_references(operation.statuses | guard_statuses(), path, border),
        },
        **_security(path, border),
    }


def _gets(border: Border) -> dict[str, JsonObject]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    probes = {
        path: _get(path, summary, text, border, frozenset({503}))
        for path, summary in PROBES.items()
    }
    return probes | {
        "/metrics": _get("/metrics", "Prometheus' metrics.", text, border),
        "/docs.json": _get("/docs.json", "This document.", _json_content(), border),
        "/schema.json": _get("/schema.json", "For BentoML's clients.", _json_content(), border),
    }


def _get(
    path: str,
    summary: str,
    content: JsonObject,
    border: Border,
    statuses: frozenset[int] = frozenset(),
) -> JsonObject:
    return {
        "tags": ["operation"],
        "operationId": path.removeprefix("/").replace(".", "_"),
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": content},
            **_references(statuses | HEAD_STATUSES | {500}, path, border),
        },
        **_security(path, border),
    }


def _references(statuses: frozenset[int], path: str, border: Border) -> JsonObject:
    """Refer to the errors' responses; 401 only where it can be."""
    answered = statuses & error_codes().keys()
    if not border.needs_token or path in border.open_paths:
        answered = answered - {401}
    return {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(answered)
    }


def _security(path: str, border: Border) -> JsonObject:
    is_closed = border.needs_token and path not in border.open_paths
    return {"security": [{"token": []}]} if is_closed else {}


def _json_success(description: str, schema: str) -> JsonObject:
    return {"description": description, "content": _json_content(_schema_reference(schema))}


def _json_content(schema: JsonObject | None = None) -> JsonObject:
    return {"application/json": {"schema": schema or {"type": "object"}}}


def _schema_reference(name: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{name}"}
