"""Bearer tokens that clients need, from a setting and a file, compared in constant time.

It knows nothing of HTTP but the header's value. Tokens are kept as digests, and no log line or
error message holds one.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import logging
import re
import threading
import time
import weakref

from lpw_sdxl.api.watched_file import CHECK_INTERVAL_S, WatchedFile
from lpw_sdxl.errors import SettingsError
from lpw_sdxl.settings import ENVIRONMENT_PREFIX, Settings

logger = logging.getLogger(__name__)

MIN_CHARACTERS = 16
MAX_CHARACTERS = 512
MAX_TOKENS = 1000
_SETTING = f"{ENVIRONMENT_PREFIX}TOKENS"
_FILE_SETTING = f"{ENVIRONMENT_PREFIX}TOKENS_FILE"
_TOKEN = re.compile(r"[!-~]+")  # what a header can carry: visible ASCII
_BEARER = re.compile(rb"(?i:bearer) +([!-~]+) *")
_BASIC = re.compile(rb"(?i:basic) +([A-Za-z0-9+/]+={0,2}) *")

Digests = frozenset[bytes]


class AccessTokens:
    """The tokens that this server accepts.

    Args:
        fixed: digests of the tokens in the settings.
        file: more tokens, one a line.
        trusts_proxy: whether any other bearer token is taken too, as one that a proxy has checked.

    Raises:
        SettingsError: the file holds no token, or one that can't be used.
    """

    def __init__(
        self, fixed: Digests, file: WatchedFile | None = None, *, trusts_proxy: bool = False
    ) -> None:
        self._fixed = fixed
        self._file = file
        self._trusts_proxy = trusts_proxy
        self._digests = fixed if file is None else fixed | _file_digests(file.content)

    @classmethod
    def from_settings(cls, settings: Settings) -> AccessTokens | None:
        """Read the tokens that the settings name; return None if they name none at all.

        Raises:
            SettingsError: a token that is too short, a list without any, a file that can't be read.
        """
        if not has_tokens(settings):
            return None
        fixed: Digests = frozenset()
        if settings.tokens is not None:
            words = re.split(r"[,\s]+", settings.tokens.get_secret_value())
            fixed = _digests([word for word in words if word], _SETTING)
        file = settings.tokens_file
        watched = None if file is None else WatchedFile(_FILE_SETTING, file)
        return cls(fixed, watched, trusts_proxy=settings.trust_proxy_auth)

    def watch(self, interval_s: float = CHECK_INTERVAL_S) -> None:
        """Start a thread that reads a changed file, as long as these tokens are in use.

        Args:
            interval_s: seconds between two checks.
        """
        if self._file is not None:
            arguments = (weakref.ref(self), interval_s)
            name = "lpw-sdxl-tokens"
            threading.Thread(target=_watch, args=arguments, name=name, daemon=True).start()

    def check(self) -> None:
        """Read the file again if it has changed; keep the old tokens if it can't be used.

        Not for the event loop: it blocks for as long as the file does not answer.
        """
        if self._file is None:
            return
        try:
            content = self._file.read_changed()
            if content is None:
                return
            self._digests = self._fixed | _file_digests(content)
        except SettingsError as error:
            logger.error("%s; the previous tokens stay valid", error)
            return
        logger.info("tokens read again: %d now", len(self._digests))

    def allow(self, authorization: list[bytes], *, takes_basic: bool = False) -> bool:
        """Return whether a request's Authorization headers hold a token that is taken.

        It touches no file. The time it takes depends only on the number of tokens and the length of
        what was sent.

        Args:
            authorization: the headers.
            takes_basic: whether the token may be the password of HTTP's Basic, or the user's name.
        """
        token = _read_token(authorization)
        is_bearer = token is not None and _BEARER.fullmatch(authorization[0]) is not None
        if not is_bearer and not takes_basic:
            token = None
        presented = hashlib.sha256(token or b"").digest()
        is_known = False
        for digest in self._digests:  # all of them: stopping at a match would show in the time
            is_known |= hmac.compare_digest(presented, digest)
        return is_known & (token is not None) | (self._trusts_proxy & is_bearer)

    def owner(self, authorization: list[bytes]) -> str:
        """Return a text that stands for the token of an allowed request: a digest."""
        return hashlib.sha256(_read_token(authorization) or b"").hexdigest()


def has_tokens(settings: Settings) -> bool:
    """Return whether the settings name any tokens."""
    return settings.tokens is not None or settings.tokens_file is not None


def _read_token(authorization: list[bytes]) -> bytes | None:
    """Read the token of Authorization headers; None if there is none."""
    if len(authorization) != 1:
        return None
    if bearer := _BEARER.fullmatch(authorization[0]):
        return bearer[1]
    basic = _BASIC.fullmatch(authorization[0])
    if basic is None:
        return None
    try:
        user, _, password = binascii.a2b_base64(basic[1]).partition(b":")
    except binascii.Error:
        return None
    return password or user or None


def _watch(reference: weakref.ref[AccessTokens], interval_s: float) -> None:
    while True:
        time.sleep(interval_s)
        tokens = reference()
        if tokens is None:
            return
        try:
            tokens.check()
        except Exception:
            logger.exception("%s can't be checked; the previous tokens stay valid", _FILE_SETTING)
        del tokens  # nothing here keeps them in use


def _file_digests(content: bytes) -> Digests:
    try:
        lines = [line.strip() for line in content.decode().splitlines()]
    except UnicodeDecodeError:
        raise SettingsError(f"{_FILE_SETTING}: the file is no text") from None
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
