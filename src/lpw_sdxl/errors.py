"""Every error this project raises on purpose, and the answer each one becomes at the HTTP border.

    LpwSdxlError
    ├── RequestError             the client's mistake: a 4xx with a code and, mostly, a field
    │   ├── InvalidRequestError  400  a field is missing, unknown, of the wrong type or out of range
    │   ├── InvalidPromptError   400  the prompt breaks a limit or holds a weight that is no number
    │   ├── OverloadedError      429  the queue is full; `retry_after_s` says when to try again
    │   └── DeadlineError        408  the request's `deadline_s` passed before its image was done
    ├── GenerationError          500  this image failed (such as a non-finite latent); others go on
    │   ├── OutOfMemoryError     500  this image does not fit into the device's memory, even alone
    │   └── TimeLimitError       504  the server's own time limit for a request passed
    ├── UnavailableError         503  the engine is stopping or has stopped
    ├── ClientLeftError          499  whoever asked has closed the connection; nobody reads this
    ├── CheckpointError          a file that can't be imported, or an import that failed
    │   ├── UnsupportedCheckpointError   a file of a kind that we recognise and don't serve
    │   ├── TransientError               a download was hindered for a moment, and is tried again
    │   └── RefusedError                 a server refused a download, with its HTTP status
    ├── AddonError               a LoRA or an embedding that can't be imported, or a damaged entry
    ├── SettingsError            an LPW_SDXL_ variable that can't be used
    └── ModelError               the model to serve is missing from the store, or damaged

Messages say what was wrong, where, and what would be right. They reach clients: no path of the
server, no secret and no prompt text belongs in a RequestError or GenerationError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

STATUS_ANSWERS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request", "the request was refused"),
    401: ("unauthorized", "a valid token is needed: authorization: Bearer TOKEN"),
    403: (
        "origin_not_allowed",
        "this server takes no requests of pages of this origin; LPW_SDXL_CORS_ORIGINS opens it",
    ),
    404: ("not_found", "there is nothing at this path; POST /generate makes an image"),
    405: ("method_not_allowed", "this path does not take this method"),
    408: ("timeout", "the request did not arrive in time"),
    413: ("body_too_large", "the body is larger than this server accepts"),
    415: ("unsupported_media_type", "the body must be application/json, in UTF-8"),
    429: ("overloaded", "too many requests; try again later"),
    431: ("headers_too_large", "the request's headers are too many or too large"),
    500: ("internal", "something went wrong on the server; its log says what"),
    503: ("unavailable", "the server is not ready"),
    504: ("timeout", "the image was not done within the server's time limit"),
}
"""Code and sentence of an answer that is no error of ours, by its HTTP status."""


class LpwSdxlError(Exception):
    """Base of every error that is ours."""


class RequestError(LpwSdxlError):
    """A client's mistake.

    Attributes:
        status: HTTP status code.
        code: stable machine-readable name.
        field: the request's field at fault (such as `loras.0.name`), or None.
    """

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequestError(RequestError):
    """A field is missing, unknown, of the wrong type or out of range."""


class InvalidPromptError(RequestError):
    """A prompt breaks a limit or holds a weight that is not a finite number."""

    code = "invalid_prompt"


class OverloadedError(RequestError):
    """The queue is full."""

    status = 429
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(RequestError):
    """The request's own deadline passed before its image was done."""

    status = 408
    code = "deadline_exceeded"


class GenerationError(LpwSdxlError):
    """One image failed for a reason on our side; the others were not touched."""

    status = 500
    code = "generation_failed"


class OutOfMemoryError(GenerationError):
    """One image does not fit into the device's memory, even alone."""

    code = "out_of_memory"


class TimeLimitError(GenerationError):
    """The server's own time limit passed before the image was done."""

    status = 504
    code = "timeout"


class UnavailableError(LpwSdxlError):
    """The engine takes no requests: it is stopping, or has stopped."""

    status = 503
    code = "unavailable"


class CheckpointError(LpwSdxlError):
    """A checkpoint can't be imported, or its import failed; the store is as it was."""


class UnsupportedCheckpointError(CheckpointError):
    """A file that was recognised as something that is not served."""


class AddonError(LpwSdxlError):
    """A LoRA or an embedding can't be imported, or its entry is damaged."""


class ClientLeftError(LpwSdxlError):
    """Whoever asked has closed the connection; the status is only for logs and metrics."""

    status = 499
    code = "client_left"


class SettingsError(LpwSdxlError):
    """An environment variable of ours holds what can't be used; the message names it."""


class ModelError(LpwSdxlError):
    """The model to serve is missing from the store, or damaged."""


def error_codes() -> dict[int, tuple[str, ...]]:
    """List every `code` that an error's answer can have, by its status."""
    codes: dict[int, dict[str, None]] = {}
    for status, code in (*_codes_of_statuses(), *_codes_of_errors(LpwSdxlError)):
        codes.setdefault(status, {})[code] = None
    return {status: tuple(found) for status, found in sorted(codes.items())}


def _codes_of_statuses() -> Iterator[tuple[int, str]]:
    return ((status, code) for status, (code, _) in STATUS_ANSWERS.items())


def _codes_of_errors(error: type[LpwSdxlError]) -> Iterator[tuple[int, str]]:
    """Yield status and code of an error and of all that are made from it."""
    if code := getattr(error, "code", None):
        yield getattr(error, "status"), code  # noqa: B009 - those with a code have both
    for kind in error.__subclasses__():
        yield from _codes_of_errors(kind)
