"""An endpoint as one row of a table: path, body, answers, errors, access.

The guard, the limits, the OpenAPI document, the metrics and the service read these rows. A row is a
BentoML API, for which service.py has a method of the same name, or has a handler of its own, which
`handlers.py` calls. The rows themselves are in `operation.py`, `native.py` and, for other APIs,
modules of their own; service.py puts them together.
"""

from __future__ import annotations

import re
from collections.abc import (
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
)
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel

from lpw_sdxl.api.asgi import JSON, JsonObject, Scope
from lpw_sdxl.api.body_memory import PARSED_BYTES, MemoryShare, unbounded_share
from lpw_sdxl.api.dialect import NATIVE, ErrorDialect

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")

MULTIPART = "multipart/form-data"
EVENTS = "text/event-stream"
TEXT = "text/plain"
READING_METHODS = ("GET", "HEAD")
_CALL = "lpw_sdxl.call"  # the scope's key of a request's Call
_REQUEST = "lpw_sdxl.request"  # the key of its parsed body, until that is taken


class HeadCheck(Enum):
    """Strictness with the head of a request that has a body.

    A strict endpoint refuses other media types than its own, and a query. A tolerant one accepts
    what the clients of its dialect send: any media type, any query.
    """

    STRICT = auto()
    TOLERANT = auto()


@dataclass(frozen=True)
class Payload:
    """A request's body as it arrived, and the part of the head that a parser needs.

    Attributes:
        content: the body; a large one as a view of memory that is the body's own.
        content_type: as the client sent it; empty where there is none.
        query: the query string of the address, not decoded.
    """

    content: bytes | memoryview
    content_type: str
    query: bytes


def add_no_limits(schema: JsonObject) -> None:
    """Leave a schema as it is."""


@dataclass(frozen=True)
class Body:
    """The body that an endpoint accepts.

    Attributes:
        parse: parses it, in one of the guard's threads; raises our own errors.
        limit: bytes; a larger body is refused, unread if its length is announced. The server's own
            limit holds for every endpoint (`border.endpoint_table`).
        type: the model of a JSON body, for the document; None if that has no schema.
        example: a JSON body that works.
        media_types: accepted media types.
        head_check: how strictly the request's head is checked.
        is_required: whether the document says that a body is required.
        add_limits: puts this server's limits into the schema of `type`; the same for all rows of a
            type.
        parsed_bytes: made of each of its bytes, at most, while it is parsed.
    """

    parse: Callable[[Payload], object]
    limit: int
    type: type[BaseModel] | None = None
    example: JsonObject | None = None
    media_types: tuple[str, ...] = (JSON,)
    head_check: HeadCheck = HeadCheck.STRICT
    is_required: bool = True
    add_limits: Callable[[JsonObject], None] = add_no_limits
    parsed_bytes: float = PARSED_BYTES


@dataclass(frozen=True)
class Answer:
    """The answer of an endpoint with status 200.

    Attributes:
        description: one line, for the document.
        media_types: possible media types.
        type: the type that a JSON answer is made from.
        headers: additional headers, as the document describes them.
        event_type: the type of the data of a stream's events; None for `type`.
        no_content: the description of an answer with status 204 instead; empty where there is none.
    """

    description: str
    media_types: tuple[str, ...] = (JSON,)
    type: Any = None
    headers: JsonObject = field(default_factory=dict)
    event_type: Any = None
    no_content: str = ""

    @property
    def types(self) -> Mapping[str, Any]:
        """Return the type of each media type's content; those without one are left out."""
        of_media = {JSON: self.type, EVENTS: self.event_type or self.type}
        return {one: of_media[one] for one in self.media_types if of_media.get(one)}


class Backend(Protocol):
    """The running service, as handlers use it."""

    @property
    def engine(self) -> Any:
        """Return the `lpw_sdxl.engine.Engine`; its type would import torch for the guard.

        Raises:
            UnavailableError: it is not there yet, or never will be.
        """

    @property
    def is_alive(self) -> bool:
        """Return whether the process works."""

    @property
    def is_starting(self) -> bool:
        """Return whether the engine is still being loaded."""

    @property
    def is_ready(self) -> bool:
        """Return whether requests are taken."""

    @property
    def previews(self) -> Any:
        """Return the `lpw_sdxl.api.previews.PreviewMaker`; its type would import torch, too."""

    @property
    def streams(self) -> Any:
        """Return the `lpw_sdxl.api.event_stream.StreamTools`; they hold the engine, too."""

    def encode_file(self, image: Any) -> bytes:
        """Encode a `lpw_sdxl.engine.GeneratedImage` as a file; CPU work for a thread."""


Handler = Callable[["Call", "Request", Backend], Awaitable["Response"]]
"""Answers a call. The request gives headers, query and disconnection; its body has been read
(`take_request`), and its path is the row's."""


@dataclass(frozen=True)
class Endpoint:
    """One row: some methods of one path.

    Attributes:
        methods: HTTP methods that it answers.
        path: with parameters as Starlette writes them, such as `/jobs/{id}`.
        summary: one line.
        answer: of status 200.
        tag: heading under which the document lists it.
        body: what it accepts; None for no body.
        handler: answers its calls, below the guard; None for a BentoML API, and for BentoML's own
            paths.
        is_direct: whether the guard itself calls the handler, before all of BentoML's layers: for
            probes, which must be quick however busy the server is.
        needs_engine: whether it is answered with 503 while there is no engine.
        dialect: of its errors.
        statuses: of its errors, beside those that the guard decides.
        needs_token: whether a client needs a token, on a server that has tokens.
        takes_basic: whether the token may come by HTTP's Basic, too.
        takes_any_origin: whether pages of other origins may call it.
        takes_links: whether pages of other sites may lead to it, by links or as pictures.
        at_once: how many of its requests are processed at a time, up to the beginning of their
            answers, while the others wait; None for any number. For what is cheap and answered at
            once: a crowd of such requests would keep the event loop from all others.
        ignores_body: whether a small body is left unread, where `body` is None: of clients that
            send one with a GET.
        is_quiet: whether its requests are not logged.
        is_documented: whether the document lists it.
    """

    methods: tuple[str, ...]
    path: str
    summary: str
    answer: Answer
    tag: str = "operation"
    body: Body | None = None
    handler: Handler | None = None
    is_direct: bool = False
    needs_engine: bool = True
    dialect: ErrorDialect = NATIVE
    statuses: frozenset[int] = frozenset()
    needs_token: bool = True
    takes_basic: bool = False
    takes_any_origin: bool = False
    takes_links: bool = False
    at_once: int | None = None
    ignores_body: bool = False
    is_quiet: bool = False
    is_documented: bool = True

    @property
    def metric_label(self) -> str:
        """Return its label in BentoML's metrics: one for all values of path parameters."""
        return self.path


@dataclass(frozen=True)
class Call:
    """A request that the guard admitted.

    Attributes:
        endpoint: the row that answers it.
        parameters: path parameters, as text.
        request_id: the client's own name for the request, or one that was made for it.
        owner: of the jobs that it begins or asks for: its token's, else its address.
        sees_jobs: whether jobs exist for it, beside those that it begins itself.
        memory: counts what its body and its pictures take.
        is_authorized: whether it has a valid token, or the server needs none.
    """

    endpoint: Endpoint
    parameters: Mapping[str, str]
    request_id: str = ""
    owner: str = ""
    sees_jobs: bool = False
    memory: MemoryShare = field(default_factory=unbounded_share)
    is_authorized: bool = True

    def item_id(self, index: int) -> str:
        """Return the id of a batch's item that has none of its own."""
        return f"{self.request_id}-{index}"


def put_call(scope: Scope, call: Call, request: object) -> Scope:
    """Return a scope that holds a call and its parsed body.

    Its path becomes the row's metric label: BentoML labels its metrics with the path and finds its
    own APIs by it. If the body names the request, so does the call.
    """
    call = replace(call, request_id=getattr(request, "request_id", None) or call.request_id)
    return {**scope, _CALL: call, _REQUEST: request, "path": call.endpoint.metric_label}


def find_call(scope: Mapping[str, Any]) -> Call | None:
    """Return the call that the guard has put into a scope; None if it did not pass the guard."""
    return scope.get(_CALL)


def take_request(scope: MutableMapping[str, Any], type_: type[T]) -> T:
    """Return a request's parsed body and remove it from the scope, so that it can be freed."""
    request = scope.pop(_REQUEST, None)
    assert isinstance(request, type_), f"{scope['path']} was not called through the guard"
    return request


def operation_name(path: str) -> str:
    """Build an operation's name from its path, such as `jobs_id` from `/jobs/{id}`."""
    return "_".join(re.findall(r"\w+", path))
