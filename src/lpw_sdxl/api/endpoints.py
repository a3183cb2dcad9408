"""What an endpoint is, in one row: path, body, answers, errors, who may ask.

The guard, the limits, the OpenAPI document, the metrics and the service read these rows. A row is a
BentoML API, for which service.py has a method of the same name, or has a handler of its own, which
`handlers.py` calls. Nothing here knows which rows there are: `operation.py`, `native.py` and each
door bring theirs, and service.py puts them together.
"""

from __future__ import annotations

import re
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel
from starlette.routing import compile_path

from lpw_sdxl.api.asgi import JSON, JsonObject, Scope
from lpw_sdxl.api.dialect import NATIVE, ErrorDialect

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")

MULTIPART = "multipart/form-data"
EVENTS = "text/event-stream"
TEXT = "text/plain"
READING_METHODS = ("GET", "HEAD")
_CALL = "lpw_sdxl.call"  # where a request's scope holds its Call
_REQUEST = "lpw_sdxl.request"  # where it holds what was parsed of the body, until that is taken


class HeadCheck(Enum):
    """How the head of a request with a body is judged.

    A strict endpoint refuses other media types than its own, and a query. A tolerant one takes
    what the clients of its dialect send: any media type, any query.
    """

    STRICT = auto()
    TOLERANT = auto()


@dataclass(frozen=True)
class Payload:
    """A request's body as it arrived, and what a parser needs of the head.

    Attributes:
        content: the body.
        content_type: as the client sent it; empty where there is none.
        query: of the address, not decoded.
    """

    content: bytes
    content_type: str
    query: bytes


def leave_as_it_is(schema: JsonObject) -> None:
    """Put no limit into a schema."""


@dataclass(frozen=True)
class Body:
    """What an endpoint takes.

    Attributes:
        parse: reads it, in one of the guard's threads; raises our own errors.
        limit: of its bytes; larger ones are refused, unread where their length is announced. The
            server's own limit holds for every endpoint (`border.guarded`).
        type: of JSON, for the document; None where that has no schema.
        example: of JSON, and works.
        media_types: that it may have.
        reading: of its head.
        is_required: whether the document says that there has to be one.
        bound: puts this server's limits into the schema of `type`; the same for all rows of a type.
    """

    parse: Callable[[Payload], object]
    limit: int
    type: type[BaseModel] | None = None
    example: JsonObject | None = None
    media_types: tuple[str, ...] = (JSON,)
    head_check: HeadCheck = HeadCheck.STRICT
    is_required: bool = True
    bound: Callable[[JsonObject], None] = leave_as_it_is


@dataclass(frozen=True)
class Answer:
    """What an endpoint answers with status 200.

    Attributes:
        description: one line, for the document.
        media_types: that it may have.
        type: of JSON; the answer is made from it.
        headers: its own, as the document describes them.
    """

    description: str
    media_types: tuple[str, ...] = (JSON,)
    type: Any = None
    headers: JsonObject = field(default_factory=dict)


class Backend(Protocol):
    """What handlers are given to answer with: the running service."""

    @property
    def engine(self) -> Any:
        """The `lpw_sdxl.engine.Engine`; its type would bring torch to the guard."""

    def file(self, image: Any) -> bytes:
        """Make the file of a `lpw_sdxl.engine.GeneratedImage`; work for a thread."""


Handler = Callable[["Call", "Request", Backend], Awaitable["Response"]]
"""Answers a call. The request is for its headers, its query and its client's leaving: its body has
been read (`take_request`), and its path is the row's."""


@dataclass(frozen=True)
class Endpoint:
    """One row: some methods of one path.

    Attributes:
        methods: that it answers.
        path: with parameters as Starlette writes them, such as `/jobs/{id}`.
        summary: one line.
        answer: of status 200.
        tag: that the document lists it under.
        body: what it takes; None for nothing.
        handler: answers it, below the guard; None for a BentoML API, and for BentoML's own paths.
        dialect: of its errors.
        statuses: of its errors, beside those that the guard decides.
        needs_token: where the server has tokens.
        takes_any_origin: whether pages of other origins may ask.
        is_quiet: whether a request leaves no line in the log.
        is_documented: whether the document tells of it.
    """

    methods: tuple[str, ...]
    path: str
    summary: str
    answer: Answer
    tag: str = "operation"
    body: Body | None = None
    handler: Handler | None = None
    dialect: ErrorDialect = NATIVE
    statuses: frozenset[int] = frozenset()
    needs_token: bool = True
    takes_any_origin: bool = False
    is_quiet: bool = False
    is_documented: bool = True

    @property
    def metric_label(self) -> str:
        """The label of its requests in BentoML's metrics: one for a path with parameters."""
        return self.path


@dataclass(frozen=True)
class Call:
    """A request that was let in.

    Attributes:
        endpoint: that is asked.
        parameters: of the path, as text.
    """

    endpoint: Endpoint
    parameters: Mapping[str, str]


def put_call(scope: Scope, call: Call, request: object) -> Scope:
    """Return a scope that holds a call and what was parsed of its body.

    Its path is the label that BentoML's metrics are to have, by which BentoML finds its own APIs.
    """
    return {**scope, _CALL: call, _REQUEST: request, "path": call.endpoint.metric_label}


def find_call(scope: Mapping[str, Any]) -> Call | None:
    """Return the call that the guard has put into a scope, if the request came through it."""
    return scope.get(_CALL)


def take_request(scope: MutableMapping[str, Any], type_: type[T]) -> T:
    """Return what the guard parsed of a request's body, once: the scope lets it go."""
    request = scope.pop(_REQUEST, None)
    assert isinstance(request, type_), f"{scope['path']} was not asked through the guard"
    return request


@dataclass(frozen=True)
class PathRows:
    """The rows at one path.

    Attributes:
        by_method: at least one.
        parameters: of the path.
    """

    by_method: Mapping[str, Endpoint]
    parameters: Mapping[str, str]

    @property
    def first(self) -> Endpoint:
        """The row that speaks for the path where no method is known."""
        return next(iter(self.by_method.values()))

    @property
    def allow(self) -> str:
        """The methods, as the header Allow lists them."""
        return ", ".join(self.by_method)


class EndpointTable:
    """All rows of a server, found by path and method.

    Args:
        endpoints: the rows; of two paths with parameters that both match, the first one counts,
            and one without parameters before all others.
        dialects: of the errors at paths that are nowhere, by what they begin with.

    Raises:
        ValueError: two rows claim one method of one path.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        dialects: Mapping[str, ErrorDialect] = MappingProxyType({}),
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._dialects = dialects
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in self._endpoints:
            methods = by_path.setdefault(endpoint.path, {})
            if not methods.keys().isdisjoint(endpoint.methods):
                raise ValueError(f"two endpoints claim {endpoint.methods} of {endpoint.path}")
            methods |= dict.fromkeys(endpoint.methods, endpoint)
        self._fixed = {path: rows for path, rows in by_path.items() if "{" not in path}
        self._patterns = [
            (compile_path(path)[0], rows) for path, rows in by_path.items() if "{" in path
        ]

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def dialect_at(self, path: str) -> ErrorDialect:
        """Return how errors are written at a path that is nowhere."""
        begins = (one for start, one in self._dialects.items() if path.startswith(start))
        return next(begins, NATIVE)

    def find(self, path: str) -> PathRows | None:
        """Return the rows at a path; None if it is nowhere."""
        if path in self._fixed:
            return PathRows(self._fixed[path], {})
        for pattern, rows in self._patterns:
            if match := pattern.fullmatch(path):
                return PathRows(rows, match.groupdict())
        return None


def field_names(types: Collection[type[BaseModel]]) -> frozenset[str]:
    """Return the names of all fields of some models, of those inside them too."""
    names: set[str] = set()
    waiting: list[object] = [type_.model_json_schema() for type_ in types]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            names |= value.get("properties", {}).keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return frozenset(names)


def operation_name(path: str) -> str:
    """Return a path as a name, such as `jobs_id` for `/jobs/{id}`."""
    return "_".join(re.findall(r"\w+", path))
