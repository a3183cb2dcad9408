"""Errors as clients receive them: status, code, message, field; `dialect.py` has their shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from lpw_sdxl.errors import (
    STATUS_ANSWERS,
    ClientLeftError,
    GenerationError,
    LpwSdxlError,
    OverloadedError,
    RequestError,
    StartingError,
    UnavailableError,
)

RETRY_AFTER_S = "10"  # if no better estimate is known; a new process takes about as long

RETRIED_STATUSES = (429, 503)
"""Statuses whose answers have a Retry-After header."""
_STATUS_HEADERS: Mapping[int, Mapping[str, str]] = {
    status: {"retry-after": RETRY_AFTER_S} for status in RETRIED_STATUSES
}


@dataclass(frozen=True)
class ErrorAnswer:
    """An error as it is sent to a client.

    Attributes:
        status: HTTP status.
        code: stable machine-readable name.
        message: one sentence for a person.
        field: the request's field at fault, if there is one.
        headers: such as Retry-After.
    """

    status: int
    code: str
    message: str
    field: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_error(cls, error: LpwSdxlError) -> ErrorAnswer:
        """Build the answer to one of our errors."""
        match error:
            case OverloadedError() | StartingError():
                headers = {"retry-after": str(error.retry_after_s)}
                return cls(error.status, error.code, str(error), headers=headers)
            case RequestError():
                return cls(error.status, error.code, error.message, error.field)
            case GenerationError() | UnavailableError() | ClientLeftError():
                headers = {**_STATUS_HEADERS.get(error.status, {})}
                return cls(error.status, error.code, str(error), headers=headers)
            case _:
                return cls.from_status(500)

    @classmethod
    def from_status(cls, status: int) -> ErrorAnswer:
        """Build the answer for a status that BentoML or Starlette decided, in another shape."""
        fallback = STATUS_ANSWERS[500 if status >= 500 else 400]
        headers = _STATUS_HEADERS.get(status, {})
        return cls(status, *STATUS_ANSWERS.get(status, fallback), headers=headers)

    @classmethod
    def for_methods(cls, allowed: str) -> ErrorAnswer:
        """Build the answer to a method that a path does not support.

        Args:
            allowed: the methods that it supports, as the Allow header lists them.
        """
        code, message = STATUS_ANSWERS[405]
        return cls(405, code, f"{message}; it takes {allowed}", headers={"allow": allowed})

    def detail(self) -> dict[str, str | None]:
        """Return code, message and field."""
        return {"code": self.code, "message": self.message, "field": self.field}
