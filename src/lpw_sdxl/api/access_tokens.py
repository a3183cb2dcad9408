"""Bearer tokens that clients need, from a setting and a file, compared in constant time.

It knows nothing of HTTP but the header's value. Tokens are kept as digests, and no log line or
error message holds one.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import ENVIRONMENT_PREFIX, Settings
from lpw_sdxl.weights.files import file_stamp

logger = logging.getLogger(__name__)

MIN_CHARACTERS = 16
MAX_CHARACTERS = 512
MAX_TOKENS = 1000
MAX_FILE_BYTES = 1024 * 1024
MIN_CHECK_INTERVAL_S = 1.0  # between two checks of the file of tokens
_SETTING = f"{ENVIRONMENT_PREFIX}TOKENS"
_FILE_SETTING = f"{ENVIRONMENT_PREFIX}TOKENS_FILE"
_TOKEN = re.compile(r"[!-~]+")  # what a header can carry: visible ASCII
_BEARER = re.compile(rb"(?i:bearer) +([!-~]+) *")

Digests = frozenset[bytes]


class AccessTokens:
    """The tokens that this server accepts; a changed file takes effect within a second.

    Args:
        fixed: digests of the tokens in the settings.
        file: more tokens, one a line; read again whenever its stamp changes (`file_stamp`).
        clock: returns the time in seconds.
    """

    def __init__(
        self, fixed: Digests, file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fixed = fixed
        self._file = file
        self._clock = clock
        self._checked_at = clock()
        # Taken before reading, so that no change is missed.
        self._stamp = None if file is None else file_stamp(file)
        self._digests = fixed if file is None else fixed | _read_file(file)

    @classmethod
    def from_settings(cls, settings: Settings) -> AccessTokens | None:
        """Read the tokens that the settings name; return None if they name none at all.

        Raises:
            SettingsError: a token that is too short, a list without any, a file that can't be read.
        """
        if settings.tokens is None and settings.tokens_file is None:
            return None
        fixed: Digests = frozenset()
        if settings.tokens is not None:
            words = re.split(r"[,\s]+", settings.tokens.get_secret_value())
            fixed = _digests([word for word in words if word], _SETTING)
        return cls(fixed, settings.tokens_file)

    def allow(self, authorization: list[bytes]) -> bool:
        """Return whether a request's Authorization headers hold one of the tokens.

        The time it takes depends only on the number of tokens and the length of what was sent.
        """
        self._reload_if_changed()
        bearer = _BEARER.fullmatch(authorization[0]) if len(authorization) == 1 else None
        presented = hashlib.sha256(bearer[1] if bearer else b"").digest()
        is_known = False
        for digest in self._digests:  # all of them: stopping at a match would show in the time
            is_known |= hmac.compare_digest(presented, digest)
        return is_known & (bearer is not None)

    def _reload_if_changed(self) -> None:
        """Read the file again if it has changed; keep the old tokens if it can't be read."""
        if self._file is None or self._clock() - self._checked_at < MIN_CHECK_INTERVAL_S:
            return
        self._checked_at = self._clock()
        stamp = file_stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # also of a file that can't be used, so that it is logged once
        try:
            self._digests = self._fixed | _read_file(self._file)
        except SettingsError as error:
            logger.error("%s; the previous tokens stay valid", error)
            return
        logger.info("tokens read again: %d now", len(self._digests))


def _read_file(file: Path) -> Digests:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{_FILE_SETTING}: {file} can't be read ({error.strerror})") from None
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError(f"{_FILE_SETTING}: {file} is larger than {MAX_FILE_BYTES} bytes")
    try:
        lines = [line.strip() for line in content.decode().splitlines()]
    except UnicodeDecodeError:
        raise SettingsError(f"{_FILE_SETTING}: {file} is no text") from None
    return _digests([line for line in lines if line and not line.startswith("#")], _FILE_SETTING)


def _digests(tokens: list[str], source: str) -> Digests:
    """Check tokens and return their digests; an error names a token by its position only."""
    if not tokens:
        raise SettingsError(f"{source} holds no token; unset it for a server that needs no token")
    if len(tokens) > MAX_TOKENS:
        raise SettingsError(f"{source} holds {len(tokens)} tokens; at most {MAX_TOKENS} are read")
    for position, token in enumerate(tokens, start=1):
        which = f"{source}: token {position} of {len(tokens)}"
        if not _TOKEN.fullmatch(token):
            raise SettingsError(f"{which} has characters other than visible ASCII")
        if not MIN_CHARACTERS <= len(token) <= MAX_CHARACTERS:
            raise SettingsError(
                f"{which} has {len(token)} characters; {MIN_CHARACTERS} to {MAX_CHARACTERS} are"
                " taken (openssl rand -hex 32 makes a good one)"
            )
    return frozenset(hashlib.sha256(token.encode()).digest() for token in tokens)
