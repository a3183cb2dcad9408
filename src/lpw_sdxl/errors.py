"""The tree of all errors that this project raises on purpose, and their answers over HTTP.

    LpwSdxlError
    ├── RequestError             the client's mistake: a 4xx with a code and, mostly, a field
    │   ├── InvalidRequestError  400  a field is missing, unknown, of the wrong type or out of range
    │   │   ├── BodyTooLargeError 413 a request is larger than any needs to be, beside its pictures
    │   │   ├── AddonNotReadError 400 a LoRA's file was found a moment ago, and is still being read
    │   │   └── UnservedScriptError 422 a script of A1111's that would change the picture
    │   ├── InvalidPromptError   400  the prompt breaks a limit, or holds a tag that is not served
    │   ├── RequestIdInUseError  409  the `request_id` is that of a job under way
    │   ├── JobCancelledError    409  the job's owner has cancelled it
    │   ├── OverloadedError      429  the queue is full; `retry_after_s` is the time to wait
    │   └── DeadlineError        408  the request's `deadline_s` passed before its image was done
    ├── GenerationError          500  this image failed (such as a non-finite latent); others go on
    │   ├── OutOfMemoryError     500  this image does not fit into the device's memory, even alone
    │   └── TimeLimitError       504  the server's own time limit for a request passed
    ├── UnavailableError         503  the engine is stopping or has stopped
    │   ├── StartingError        503  it is not there yet: the model is still being loaded
    │   ├── LoraUnavailableError 503  a LoRA's file was removed or damaged since the service started
    │   └── UpscalerUnavailableError 503  likewise, an upscaler's
    ├── ClientLeftError          499  the client has closed the connection and reads no answer
    ├── CheckpointError          a file that can't be imported, or an import that failed
    │   ├── UnsupportedCheckpointError   a file of a kind that is recognised and not served
    │   ├── TransientError               a download was hindered for a moment, and is tried again
    │   └── RefusedError                 a server refused a download, with its HTTP status
    ├── AddonError               an add-on that can't be imported, or a damaged entry
    │   └── UnfitAddonError      a whole one, which is for another model
    ├── SettingsError            an LPW_SDXL_ variable that can't be used
    └── ModelError               the model to serve is missing from the store, or damaged

A message states what was wrong, where, and what would be right. Messages reach clients: no path of
the server, no secret and no prompt text belongs in a RequestError or GenerationError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

STATUS_ANSWERS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request", "the request was refused"),
    401: ("unauthorized", "a valid token is needed: authorization: Bearer TOKEN"),
    403: (
        "origin_not_allowed",
        "this server takes no requests of pages of this origin; LPW_SDXL_CORS_ORIGINS opens it, or"
        " LPW_SDXL_HOSTS if it is a name of this server",
    ),
    404: ("not_found", "there is nothing at this path; POST /generate makes an image"),
    405: ("method_not_allowed", "this path does not take this method"),
    408: ("timeout", "the request did not arrive in time"),
    409: ("request_id_in_use", "a job under way has this request_id"),
    413: ("body_too_large", "the body is larger than this server accepts"),
    415: ("unsupported_media_type", "the body must be application/json, in UTF-8"),
    422: ("unserved_script", "the request has a script that is not here"),
    429: ("overloaded", "too many requests; try again later"),
    431: ("headers_too_large", "the request's headers are too many or too large"),
    500: ("internal", "something went wrong on the server; its log says what"),
    503: ("unavailable", "the server is not ready"),
    504: ("timeout", "the image was not done within the server's time limit"),
}
"""Code and sentence of an error answer without an error of this tree, by its HTTP status."""


class LpwSdxlError(Exception):
    """The base of every error of this tree."""


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
    """A field that is missing, unknown, of the wrong type or out of range."""


class BodyTooLargeError(InvalidRequestError):
    """A request of more bytes than one may need, beside its pictures."""

    status = 413
    code = "body_too_large"


class AddonNotReadError(InvalidRequestError):
    """A LoRA whose file is still being read; the same request in a moment would be right.

    Attributes:
        pending: the file, as the registry has it.
    """

    def __init__(self, message: str, *, field: str | None = None, pending: object = None) -> None:
        super().__init__(message, field=field)
        self.pending = pending


class UnservedScriptError(InvalidRequestError):
    """A script of A1111's that would change the picture; its servers answer one with 422, too."""

    status = 422
    code = "unserved_script"


class InvalidPromptError(RequestError):
    """A prompt that breaks a limit, or holds a tag or a weight that can't be used."""

    code = "invalid_prompt"


class RequestIdInUseError(RequestError):
    """A `request_id` that a job under way has."""

    status = 409
    code = "request_id_in_use"


class JobCancelledError(RequestError):
    """A job that its owner has cancelled."""

    status = 409
    code = "cancelled"


class OverloadedError(RequestError):
    """A full queue."""

    status = 429
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(RequestError):
    """A request's own deadline that passed before its image was done."""

    status = 408
    code = "deadline_exceeded"


class GenerationError(LpwSdxlError):
    """A failure of one image on the server's side; the others go on."""

    status = 500
    code = "generation_failed"


class OutOfMemoryError(GenerationError):
    """An image that does not fit into the device's memory, even alone."""

    code = "out_of_memory"


class TimeLimitError(GenerationError):
    """The server's own time limit, passed before the image was done."""

    status = 504
    code = "timeout"


class UnavailableError(LpwSdxlError):
    """An engine that takes no requests: it is stopping, or has stopped."""

    status = 503
    code = "unavailable"


class StartingError(UnavailableError):
    """A server that is still loading its model."""

    code = "starting"
    retry_after_s = 3


class LoraUnavailableError(UnavailableError):
    """A LoRA that this server can't read any more: its file was removed or damaged."""

    code = "lora_unavailable"


class UpscalerUnavailableError(UnavailableError):
    """An upscaler that this server can't read any more: its file was removed or damaged."""

    code = "upscaler_unavailable"


class CheckpointError(LpwSdxlError):
    """A checkpoint that can't be imported, or a failed import; the store is unchanged."""


class UnsupportedCheckpointError(CheckpointError):
    """A file of a kind that is recognised and not served."""


class AddonError(LpwSdxlError):
    """An add-on that can't be imported, or a damaged entry of one."""


class UnfitAddonError(AddonError):
    """An add-on that is whole, and for another model than the one that is served."""


class ClientLeftError(LpwSdxlError):
    """A client that has closed the connection; the status is only for logs and metrics."""

    status = 499
    code = "client_left"


class SettingsError(LpwSdxlError):
    """An LPW_SDXL_ environment variable that can't be used; the message names it."""


class ModelError(LpwSdxlError):
    """A model to serve that is missing from the store, or damaged."""


def error_codes() -> dict[int, tuple[str, ...]]:
    """List every `code` that an error's answer can have, by its status."""
    codes: dict[int, dict[str, None]] = {}
    for status, code in (*_codes_of_statuses(), *_codes_of_errors(LpwSdxlError)):
        codes.setdefault(status, {})[code] = None
    return {status: tuple(found) for status, found in sorted(codes.items())}


def _codes_of_statuses() -> Iterator[tuple[int, str]]:
    return ((status, code) for status, (code, _) in STATUS_ANSWERS.items())


def _codes_of_errors(error: type[LpwSdxlError]) -> Iterator[tuple[int, str]]:
    """Yield status and code of an error class and of all its subclasses."""
    if code := getattr(error, "code", None):
        yield getattr(error, "status"), code  # noqa: B009 - those with a code have both
    for kind in error.__subclasses__():
        yield from _codes_of_errors(kind)
