"""What an answer's headers say about its bytes (RFC 9110 sections 8.6, 8.8 and 14.4).

Pure; what is not as the RFC has it counts as not said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_NUMBER = re.compile("[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")
_STRONG_ETAG = re.compile(r'"[!#-~]{0,200}"')
_DATE = re.compile(r"[A-Za-z0-9:, +-]{1,40}")


class ContentRange(NamedTuple):
    """Where an answer's first byte is in the file, and the file's size; None if it is not said."""

    start: int | None
    size: int | None


def read_content_range(headers: Mapping[str, str]) -> ContentRange:
    """Read which part of the file an answer holds."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    start, size = match.groups() if match else (None, None)
    return ContentRange(
        start=int(start) if start else None, size=int(size) if size and size != "*" else None
    )


def read_length(headers: Mapping[str, str]) -> int | None:
    """Read how many bytes an answer declares, or None."""
    length = headers.get("content-length", "")
    return int(length) if _NUMBER.fullmatch(length) else None


def read_validator(headers: Mapping[str, str]) -> str | None:
    """Read what tells whether the server's file is the same: its strong ETag, else its date."""
    etag, date = headers.get("etag", ""), headers.get("last-modified", "")
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    return date if _DATE.fullmatch(date) else None


def contradicts(headers: Mapping[str, str], validator: str | None) -> bool:
    """Tell whether an answer is of another file than the one with the validator."""
    found = read_validator(headers)
    if found is None or validator is None:
        return False
    # A date and an ETag say nothing about each other.
    is_comparable = found.startswith('"') == validator.startswith('"')
    return is_comparable and found != validator
