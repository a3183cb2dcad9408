"""ASGI's own nouns, as types: what passes between a server and an application; and JSON."""

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
    """Give every value that a request has for a header; its name in lower case."""
    return [value for key, value in scope["headers"] if key.lower() == name]
