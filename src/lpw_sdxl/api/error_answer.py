"""Every error that a client sees: status, code, message, field; `dialect.py` says in what shape."""

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
    UnavailableError,
)

RETRY_AFTER_S = "10"  # where nobody knows better; a new process takes about as long

RETRIED_STATUSES = (429, 503)
"""Those whose answers say when another try is worth while."""
_STATUS_HEADERS: Mapping[int, Mapping[str, str]] = {
    status: {"retry-after": RETRY_AFTER_S} for status in RETRIED_STATUSES
}


@dataclass(frozen=True)
class ErrorAnswer:
    """An error as it goes over the wire.

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
        """Turn one of our errors into its answer."""
        match error:
            case OverloadedError():
                headers = {"retry-after": str(error.retry_after_s)}
                return cls(error.status, error.code, error.message, headers=headers)
            case RequestError():
                return cls(error.status, error.code, error.message, error.field)
            case GenerationError() | UnavailableError() | ClientLeftError():
                headers = {**_STATUS_HEADERS.get(error.status, {})}
                return cls(error.status, error.code, str(error), headers=headers)
            case _:
                return cls.from_status(500)

    @classmethod
    def from_status(cls, status: int) -> ErrorAnswer:
        """Answer for a status that was decided below us, in a shape that is not ours."""
        fallback = STATUS_ANSWERS[500 if status >= 500 else 400]
        headers = _STATUS_HEADERS.get(status, {})
        return cls(status, *STATUS_ANSWERS.get(status, fallback), headers=headers)

    @classmethod
    def for_methods(cls, allowed: str) -> ErrorAnswer:
        """Answer for a method that a path doesn't take.

        Args:
            allowed: those it takes, as the header Allow lists them.
        """
        code, message = STATUS_ANSWERS[405]
        return cls(405, code, f"{message}; it takes {allowed}", headers={"allow": allowed})

    def detail(self) -> dict[str, str | None]:
        """Give code, message and field."""
        return {"code": self.code, "message": self.message, "field": self.field}
