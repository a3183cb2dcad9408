"""What a server's answer means when it is not the file: one sentence for each.

Knows nothing about httpx. Hosts are named, URLs never: they may be presigned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from lpw_sdxl.download.key import Key
from lpw_sdxl.errors import CheckpointError

_FILE_STATUSES = frozenset({200, 206, 416})
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_WEB_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_REASONS = {
    401: "wants a login (401); download the file yourself and pass its path",
    403: "refuses to give this file (403); a signed URL may have expired",
    404: "has no such file (404); check the URL",
    410: "had this file and has it no more (410); another source is needed",
}


class TransientError(CheckpointError):
    """A failure that may be over a moment later.

    Attributes:
        retry_after_s: how long the server asked to be left alone, seconds.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RefusedError(CheckpointError):
    """A server's answer that is no file and won't become one.

    Attributes:
        status: HTTP status code; 401 for a login page too.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """One request: its host, and the key that went with it.

    Attributes:
        host: without its port.
        key: the user's for this host, set or not; None for a host that takes none.
        has_key: whether it was sent.
    """

    host: str
    key: Key | None
    has_key: bool


def check_answer(asked: Asked, status: int, headers: Mapping[str, str]) -> None:
    """Check that an answer may hold a file: 200, 206 or 416, no web page, not compressed.

    Raises:
        TransientError: the server is busy or out of order.
        RefusedError: the server does not give the file.
        CheckpointError: the file comes in a form that was not asked for.
    """
    if status in _TRANSIENT_STATUSES or status >= 500:
        raise TransientError(
            f"{asked.host} is busy or out of order ({status}).",
            _retry_after_s(headers.get("retry-after", "")),
        )
    if status not in _FILE_STATUSES:
        raise RefusedError(_refusal(asked, status), status)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if status != 416 and media_type in _WEB_PAGES:
        raise login_needed(asked)
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise CheckpointError(
            f"{asked.host} sends the file compressed, though it was asked not to; "
            "download it yourself and pass its path."
        )


def login_needed(asked: Asked) -> RefusedError:
    """Return the error for a login page that came in the place of a file."""
    page = f"{asked.host} sent a web page instead of a file, as it does when a login is needed"
    if asked.key is None:
        message = f"{page}; download the file yourself and pass its path."
    elif asked.has_key:
        account = f"the account of {asked.key.variable} may not have the file"
        message = f"{page} or {account}; {asked.key.advice}."
    else:
        message = f"{page}; {asked.key.advice}."
    return RefusedError(message, 401)


def _refusal(asked: Asked, status: int) -> str:
    host = asked.host
    if status in (401, 403) and asked.key is not None:
        key = asked.key
        if not asked.has_key:
            return f"{host} gives this only with a key ({status}); {key.advice}."
        if status == 401:
            return f"{host} refuses the key in {key.variable} (401); {key.advice}."
        return f"{host} does not give this to the account of {key.variable} (403): {key.withheld}."
    return f"{host} {_REASONS.get(status, f'answered {status} instead of a file; check the URL')}."


def _retry_after_s(text: str) -> float:
    """Read a Retry-After header, seconds or a date (RFC 9110 section 10.2.3)."""
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    try:
        wait = parsedate_to_datetime(text) - datetime.now(UTC)
    except (ValueError, TypeError):  # no date, or one without its zone
        return 0.0
    return max(0.0, wait.total_seconds())
