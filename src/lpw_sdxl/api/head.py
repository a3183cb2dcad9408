"""What is refused by its headers and address alone, before a body is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lpw_sdxl.api.errors import ErrorAnswer


def refusal_of_head(scope: Mapping[str, Any]) -> ErrorAnswer | None:
    """Say what is wrong with a request that takes JSON before its body is read, or None."""
    if not _is_json(scope):
        return ErrorAnswer.from_status(415)
    encodings = [value for name, value in scope["headers"] if name.lower() == b"content-encoding"]
    if encodings and encodings != [b"identity"]:
        return ErrorAnswer(
            415,
            "unsupported_media_type",
            "a body with a content-encoding is not read; it must be sent as plain JSON",
        )
    if scope.get("query_string"):  # whoever writes fields there would see them ignored
        return ErrorAnswer(
            400,
            "invalid_request",
            "the address has a query, which is not read; fields belong into the JSON body",
        )
    return None


def _is_json(scope: Mapping[str, Any]) -> bool:
    """Tell whether the body says that it is JSON; anything else BentoML would guess at."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-type":
            media_type: str = value.decode("latin-1").split(";")[0].strip().lower()
            return media_type == "application/json"
    return False
