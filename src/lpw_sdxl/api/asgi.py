"""Types of ASGI and JSON: what passes between a server and an application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
JsonObject = dict[str, Any]
JSON = "application/json"


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """Return every value of a request's header.

    Args:
        scope: the request's.
        name: of the header, in lower case.
    """
    return [value for key, value in scope["headers"] if key.lower() == name]
