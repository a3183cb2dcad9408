"""A case: a wrong request, the way to send it, and its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SETTINGS: Mapping[str, str] = {
    "LPW_SDXL_MAX_STEPS": "4",
    "LPW_SDXL_MAX_WIDTH": "136",
    "LPW_SDXL_MAX_HEIGHT": "128",
    "LPW_SDXL_MAX_PROMPT_CHARACTERS": "2000",
    "LPW_SDXL_MAX_PROMPT_CHUNKS": "4",
    "LPW_SDXL_MAX_BODY_BYTES": "65536",
    "LPW_SDXL_MAX_BATCH_ITEMS": "3",
    "LPW_SDXL_MAX_LORAS": "1",
}
GOOD: Mapping[str, Any] = {"prompt": "a", "num_inference_steps": 1}
JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}


@dataclass(frozen=True)
class Http:
    """One request as an HTTP client sends it."""

    method: str = "POST"
    path: str = "/generate"
    body: bytes = json.dumps(GOOD).encode()
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_HEADERS)


@dataclass(frozen=True)
class Wire:
    """One request as bytes on a connection, which no HTTP client would send."""

    sent: bytes


@dataclass(frozen=True)
class Bad:
    """A wrong request and its answer.

    Attributes:
        name: what is wrong.
        sent: fields that are added to a good request of `/generate`, a body of it as it is, or any
            request at all.
        field: of the error.
        message: of the error.
        status: of the answer. 200 is a batch, whose only item is the error.
        code: of the error; `no_http` is refused by the HTTP library before any of us, in its words.
    """

    name: str
    sent: Mapping[str, Any] | str | bytes | Http | Wire
    field: str | None
    message: str
    status: int = 400
    code: str = "invalid_request"

    @property
    def request(self) -> Http | Wire:
        match self.sent:
            case Http() | Wire():
                return self.sent
            case str():
                return Http(body=self.sent.encode())
            case bytes():
                return Http(body=self.sent)
            case fields:
                return Http(body=json.dumps({**GOOD, **fields}).encode())


def to(path: str, body: object) -> Http:
    """Send JSON to another endpoint; a text or bytes as they are."""
    if isinstance(body, str | bytes):
        return Http(path=path, body=body if isinstance(body, bytes) else body.encode())
    return Http(path=path, body=json.dumps(body).encode())


def inspect(**fields: object) -> Http:
    """Send an inspection, with a valid prompt by default."""
    return to("/inspect_prompt", {"prompt": "a", **fields})


def item(body: object) -> Http:
    """Send a batch of one item; a text is the item's JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    return to("/generate_batch", f'{{"requests": [{text}]}}')


def bare(content_type: str | None, body: bytes = b"{}", path: str = "/generate") -> Http:
    """Send a body of another media type, or of none."""
    return Http(path=path, body=body, headers=typed(content_type))


def typed(content_type: str | None, **others: str) -> dict[str, str]:
    """Write headers; an underscore in a name is a hyphen."""
    headers = {} if content_type is None else {"content-type": content_type}
    return headers | {name.replace("_", "-"): value for name, value in others.items()}


def wire(*lines: bytes, body: bytes = b"") -> Wire:
    """Write a POST to /generate by hand, with these header lines besides the usual ones."""
    head = (b"POST /generate HTTP/1.1", b"host: here", b"content-type: application/json", *lines)
    return Wire(b"\r\n".join((*head, b"connection: close", b"", body)))


def at(path: str, method: str = "POST") -> Http:
    """Send a good request to any path by any method."""
    return Http(method=method, path=path, body=json.dumps(GOOD).encode())
