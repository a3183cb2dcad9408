"""JSON texts of other programs' clients, whose values are bounded in number."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.json_bounds import check_bounds
from lpw_sdxl.picture_text import SLICE_BYTES

_BLANK = b" \t\r\n"


def is_object(body: bytes | memoryview) -> bool:
    """Return whether a body begins as an object of JSON does."""
    return bytes(body[:SLICE_BYTES]).lstrip(_BLANK).startswith(b"{")


def parse_json(text: bytes | memoryview | str) -> Any:
    """Parse a JSON text whose values are bounded in number.

    Raises:
        InvalidRequestError: it is no JSON, or over the bounds.
    """
    content = text.encode() if isinstance(text, str) else text
    check_bounds(content)
    try:
        return from_json(bytes(content))
    except ValueError as error:
        where = re.sub(r"[^ -~]", "?", str(error))[:200]
        raise InvalidRequestError(f"the body is not valid JSON: {where}") from None
