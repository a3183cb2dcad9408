"""The OpenAPI document, made once at start from the rows of the endpoints.

BentoML's own lists four statuses and no limit. This one holds every status that an operation can
answer, with the codes of its errors, and each request's schema as this server's settings bound it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from starlette.routing import compile_path

from lpw_sdxl import __version__
from lpw_sdxl.api.dialect import NATIVE
from lpw_sdxl.api.endpoints import (
    JSON,
    READING_METHODS,
    Answer,
    Body,
    Endpoint,
    JsonObject,
    operation_name,
)
from lpw_sdxl.api.openapi_errors import (
    BODY_STATUSES,
    HEAD_STATUSES,
    error_codes,
    error_responses,
    response_name,
)

OPENAPI_VERSION = "3.1.0"  # whose schemas are JSON Schema's, as pydantic writes them
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
        has_tokens: whether the server asks for tokens.
    """
    rows = [endpoint for endpoint in endpoints if endpoint.is_documented]
    return json.dumps(_document(rows, has_tokens)).encode()


def _document(rows: Sequence[Endpoint], has_tokens: bool) -> JsonObject:
    schemas = _Schemas.of(rows)
    paths: dict[str, JsonObject] = {}
    for row in rows:
        operation = _operation(row, schemas, has_tokens)
        paths.setdefault(row.path, {}).update(
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
        requests: by `str` of the type, a reference to it.
        answers: likewise; where a type has no name, its schema.
    """

    components: JsonObject
    requests: Mapping[str, JsonObject]
    answers: Mapping[str, JsonObject]

    @classmethod
    def of(cls, rows: Sequence[Endpoint]) -> _Schemas:
        """Write the schemas, with this server's limits put into those of requests."""
        bodies = [row.body for row in rows if row.body and row.body.type]
        requests, components = _schemas_of([body.type for body in bodies], "validation")
        answers, more = _schemas_of([row.answer.type for row in rows], "serialization")
        components |= more
        for body in bodies:
            assert body.type is not None
            body.bound(components[body.type.__name__])
        codes = tuple(dict.fromkeys(code for codes in error_codes().values() for code in codes))
        return cls(components | {"Error": NATIVE.schema(codes)}, requests, answers)


def _schemas_of(types: Sequence[Any], mode: Any) -> tuple[dict[str, JsonObject], JsonObject]:
    """Return each type's schema, mostly a reference, and the schemas that are referred to."""
    told = [type_ for type_ in types if type_ is not None]
    inputs = [(index, mode, TypeAdapter(type_)) for index, type_ in enumerate(told)]
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE)
    by_type = [(type_, schemas[index, mode]) for index, type_ in enumerate(told)]
    return {str(type_): schema for type_, schema in by_type}, definitions.get("$defs", {})


def _documented_methods(row: Endpoint) -> list[str]:
    """List a row's methods as the document has them; a HEAD beside a GET goes without saying."""
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
        "responses": {"200": _success(row.answer, schemas), **_errors(row, is_closed)},
        **({"security": [{"token": []}]} if is_closed else {}),
    }


def _request_body(body: Body, schemas: _Schemas) -> JsonObject:
    media: JsonObject = {"schema": schemas.requests.get(str(body.type), {"type": "object"})}
    if body.example is not None:
        media["example"] = body.example
    return {"required": True, "content": dict.fromkeys(body.media_types, media)}


def _success(answer: Answer, schemas: _Schemas) -> JsonObject:
    content = {kind: {"schema": _content(answer, kind, schemas)} for kind in answer.media_types}
    headers = {"headers": answer.headers} if answer.headers else {}
    return {"description": answer.description, **headers, "content": content}


def _content(answer: Answer, media_type: str, schemas: _Schemas) -> JsonObject:
    if media_type == JSON:
        return schemas.answers.get(str(answer.type), {"type": "object"})
    is_text = media_type.startswith("text/")
    return {"type": "string"} if is_text else {"type": "string", "format": "binary"}


def _errors(row: Endpoint, is_closed: bool) -> JsonObject:
    """Refer to the errors' responses; 401 only where it can be."""
    statuses = row.statuses | HEAD_STATUSES | (BODY_STATUSES if row.body else frozenset())
    answered = statuses & error_codes().keys()
    if not is_closed:
        answered = answered - {401}
    return {
        str(status): {"$ref": f"#/components/responses/{response_name(row.dialect, status)}"}
        for status in sorted(answered)
    }
