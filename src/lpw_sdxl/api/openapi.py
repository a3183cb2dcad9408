"""The OpenAPI document, made once at start from the rows of the endpoints.

BentoML's own lists four statuses and no limit. This one holds every status that an operation can
answer, with the codes of its errors, and each request's schema with this server's limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from starlette.routing import compile_path

from lpw_sdxl import __version__
from lpw_sdxl.api.asgi import JSON, JsonObject
from lpw_sdxl.api.dialect import NATIVE
from lpw_sdxl.api.endpoints import EVENTS, READING_METHODS, Answer, Body, Endpoint, operation_name
from lpw_sdxl.api.openapi_errors import (
    BODY_STATUSES,
    HEAD_STATUSES,
    answered_codes,
    error_responses,
    response_name,
)

OPENAPI_VERSION = "3.1.0"  # its schemas are JSON Schema, which pydantic writes
_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Makes pictures from prompts of any length, many requests at a time. Every error is"
    ' `{"error": {"code", "message", "field"}}`; the codes are stable. Beside what each operation'
    " lists: a path that is not here is a 404, and a path that is here a 405 for other methods,"
    " with `Allow`."
)


def write_document(endpoints: Iterable[Endpoint], *, has_tokens: bool) -> bytes:
    """Write the OpenAPI document as JSON.

    Args:
        endpoints: all rows; those that are not documented are left out.
        has_tokens: whether the server requires tokens.
    """
    rows = [endpoint for endpoint in endpoints if endpoint.is_documented]
    return json.dumps(_document(rows, has_tokens)).encode()


def _document(rows: Sequence[Endpoint], has_tokens: bool) -> JsonObject:
    schemas = _Schemas.of(rows)
    paths: dict[str, JsonObject] = {}
    for row in rows:
        operation = _operation(row, schemas, has_tokens)
        paths.setdefault(compile_path(row.path)[1], {}).update(
            {method: dict(operation) for method in _documented_methods(row)}
        )
    for path, operations in paths.items():
        for method, operation in operations.items():
            suffix = f"_{method}" if len(operations) > 1 else ""
            operation["operationId"] = operation_name(path) + suffix
    dialects = dict.fromkeys([NATIVE, *(row.dialect for row in rows)])
    components: JsonObject = {
        "schemas": schemas.components,
        "responses": {
            name: response
            for dialect in dialects
            for name, response in error_responses(dialect, has_tokens=has_tokens).items()
        },
    }
    if has_tokens:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": "LPW-SDXL", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "."}],
        "tags": [{"name": tag} for tag in dict.fromkeys(row.tag for row in rows)],
        "paths": paths,
        "components": components,
    }


@dataclass(frozen=True)
class _Schemas:
    """The schemas of all requests and answers.

    Attributes:
        components: by their names in the document.
        requests: a reference to each request's type.
        answers: a reference to each answer's type, or the schema of a type without a name; by
            `str` of the type, since not every type can be a key.
    """

    components: JsonObject
    requests: Mapping[type[BaseModel], JsonObject]
    answers: Mapping[str, JsonObject]

    @classmethod
    def of(cls, rows: Sequence[Endpoint]) -> _Schemas:
        """Build the schemas, with this server's limits in those of requests."""
        bodies = {row.body.type: row.body for row in rows if row.body and row.body.type}
        answers = {str(type_): type_ for row in rows for type_ in row.answer.types.values()}
        inputs: list[tuple[Any, Any, TypeAdapter[Any]]] = [
            *((type_, "validation", TypeAdapter(type_)) for type_ in bodies),
            *((name, "serialization", TypeAdapter(type_)) for name, type_ in answers.items()),
        ]
        schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE)
        components: JsonObject = definitions.get("$defs", {})
        requests = {type_: schemas[type_, "validation"] for type_ in bodies}
        for type_, body in bodies.items():
            body.add_limits(components[requests[type_]["$ref"].rpartition("/")[2]])
        codes = tuple(dict.fromkeys(code for codes in answered_codes().values() for code in codes))
        return cls(
            components | {"Error": NATIVE.schema(codes)},
            requests,
            {name: schemas[name, "serialization"] for name in answers},
        )


def _documented_methods(row: Endpoint) -> list[str]:
    """List a row's methods as the document has them; a HEAD beside a GET is left out."""
    return [
        method.lower()
        for method in row.methods
        if method != "HEAD" or row.methods != READING_METHODS
    ]


def _operation(row: Endpoint, schemas: _Schemas, has_tokens: bool) -> JsonObject:
    parameters = [
        {"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}
        for parameter in compile_path(row.path)[2]
    ]
    is_closed = has_tokens and row.needs_token
    return {
        "tags": [row.tag],
        "summary": row.summary,
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": _request_body(row.body, schemas)} if row.body else {}),
        "responses": {
            "200": _success(row.answer, schemas),
            **({"204": {"description": row.answer.no_content}} if row.answer.no_content else {}),
            **_errors(row, is_closed),
        },
        **({"security": [{"token": []}]} if is_closed else {}),
    }


def _request_body(body: Body, schemas: _Schemas) -> JsonObject:
    schema = {"type": "object"} if body.type is None else schemas.requests[body.type]
    media: JsonObject = {"schema": schema}
    if body.example is not None:
        media["example"] = body.example
    return {"required": body.is_required, "content": dict.fromkeys(body.media_types, media)}


def _success(answer: Answer, schemas: _Schemas) -> JsonObject:
    content = {kind: {"schema": _content(answer, kind, schemas)} for kind in answer.media_types}
    headers = {"headers": answer.headers} if answer.headers else {}
    return {"description": answer.description, **headers, "content": content}


def _content(answer: Answer, media_type: str, schemas: _Schemas) -> JsonObject:
    schema = schemas.answers.get(str(answer.types.get(media_type)))
    if media_type == JSON:
        return schema or {"type": "object"}
    if media_type == EVENTS and schema is not None:
        return _event(schema)
    is_text = media_type.startswith("text/")
    return {"type": "string"} if is_text else {"type": "string", "format": "binary"}


def _event(data: JsonObject) -> JsonObject:
    """Describe one event of a stream, which has JSON as its data."""
    content = {"contentMediaType": JSON, "contentSchema": data}
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {"event": {"type": "string"}, "data": {"type": "string", **content}},
    }


def _errors(row: Endpoint, is_closed: bool) -> JsonObject:
    """Build references to the errors' responses; 401 only if the row needs a token."""
    statuses = row.statuses | HEAD_STATUSES | (BODY_STATUSES if row.body else frozenset())
    statuses |= {503} if row.needs_engine else frozenset()
    answered = statuses & answered_codes().keys()
    if not is_closed:
        answered = answered - {401}
    if row.is_quiet:
        answered = answered - {429}  # probes are answered beside any number of requests
    return {
        str(status): {"$ref": f"#/components/responses/{response_name(row.dialect, status)}"}
        for status in sorted(answered)
    }
