"""The text of a picture in JSON, base64 or a data URL, to the bytes of its file.

It is read in slices, with pauses between them: for a large picture one call would hold the
interpreter's lock for 50 ms.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator

from lpw_sdxl.errors import InvalidRequestError
from lpw_sdxl.interpreter import let_others_run

SLICE_BYTES = 2**16
MAX_HEAD_BYTES = 256  # in which the head of a data URL ends
WHITE_SPACE = b" \t\r\n\v\f"
QUARTET = 4
LONGEST_ESCAPE = 6  # of a character in JSON

_DATA_URL = re.compile(rb"\s*data:([^,]*),", re.IGNORECASE)
_OTHER_URL = re.compile(rb"\s*[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_FROM_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")


def refused(field: str, reason: str) -> InvalidRequestError:
    """Make the error for a picture that is not read; `reason` continues "The field ...."."""
    return InvalidRequestError(f"{field} {reason}", field=field)


def decode_picture_text(text: str, field: str, max_bytes: int | None = None) -> bytes:
    """Decode base64 or a data URL; CPU work of up to 100 ms, for a worker thread.

    White space is skipped, padding may be missing, and the alphabet may be the one for URLs. A data
    URL's media type is not read: the file's first bytes decide.

    Args:
        text: of the request.
        field: of the request, for refusals.
        max_bytes: of the file; no more is decoded. None for any number.

    Raises:
        InvalidRequestError: if it is neither, such as the URL of a page, or decodes to more bytes.
    """
    try:
        pieces = (
            text[start : start + SLICE_BYTES].encode("ascii")
            for start in range(0, len(text), SLICE_BYTES)
        )
        return _decode(pieces, field, max_bytes)
    except UnicodeEncodeError as error:
        raise _not_base64(field) from error


def decode_json_picture(
    text: bytes | memoryview, field: str, max_bytes: int | None = None
) -> bytes:
    """Decode a picture's text as it stands in JSON, without making a text of it first.

    Args:
        text: of the JSON, between the quotes.
        field: as in `decode_picture_text`, like what follows.
        max_bytes: likewise.

    Raises:
        InvalidRequestError: likewise.
    """
    try:
        return _decode(_unescape(text), field, max_bytes)
    except ValueError as error:
        raise _not_base64(field) from error


def _unescape(text: bytes | memoryview) -> Iterator[bytes]:
    """Yield slices of a JSON string without its escapes, as some writers make of `/` and `+`."""
    start = 0
    while start < len(text):
        piece = bytes(text[start : start + SLICE_BYTES])
        start += len(piece)
        if b"\\" in piece:
            escape = piece.rfind(b"\\", max(0, len(piece) - LONGEST_ESCAPE))
            if escape > 0 and start < len(text):  # it may go on in the next slice
                start -= len(piece) - escape
                piece = piece[:escape]
            piece = json.loads(b'"%b"' % piece).encode("ascii")
        yield piece


def _decode(pieces: Iterator[bytes], field: str, max_bytes: int | None) -> bytes:
    decoded, size = [], 0
    for part in _read_parts(pieces, field):
        let_others_run()
        decoded.append(part)
        size += len(part)
        if max_bytes is not None and size > max_bytes:
            raise refused(field, f"has more than {max_bytes} bytes; send a smaller file")
    return b"".join(decoded)


def _read_parts(pieces: Iterator[bytes], field: str) -> Iterator[bytes]:
    reader = _Base64Reader(field)
    yield from map(reader.read, pieces)
    yield reader.end()


class _Base64Reader:
    """A reader of base64 that comes in pieces."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._is_begun = False
        self._is_padded = False  # nothing but padding may follow
        self._has_usual = self._has_for_urls = False  # letters of one alphabet, or of the other
        self._rest = b""  # less than a quartet

    def read(self, piece: bytes) -> bytes:
        """Decode one piece, but for an incomplete quartet at its end."""
        if not self._is_begun:
            piece = self._without_head(piece)
            self._is_begun = True
        symbols = piece.translate(None, WHITE_SPACE)
        symbols = self._without_padding(symbols)
        self._has_usual |= b"+" in symbols or b"/" in symbols
        if b"-" in symbols or b"_" in symbols:
            self._has_for_urls = True
            symbols = symbols.translate(_FROM_URL_ALPHABET)
        if self._has_usual and self._has_for_urls:
            raise _not_base64(self._field)
        symbols = self._rest + symbols
        whole = len(symbols) - len(symbols) % QUARTET
        self._rest = symbols[whole:]
        return self._to_bytes(symbols[:whole])

    def end(self) -> bytes:
        """Decode the last quartet."""
        return self._to_bytes(self._rest + b"=" * (-len(self._rest) % QUARTET))

    def _without_head(self, piece: bytes) -> bytes:
        """Drop the head of a data URL."""
        head = piece[:MAX_HEAD_BYTES]
        if data_url := _DATA_URL.match(head):
            if not data_url[1].strip().lower().endswith(b";base64"):
                raise refused(
                    self._field, "is a data URL without ;base64; encode the file with base64"
                )
            return piece[data_url.end() :]
        if _OTHER_URL.match(head):
            raise refused(
                self._field,
                "is a URL, and this server fetches none; send the file itself, as base64",
            )
        return piece

    def _without_padding(self, symbols: bytes) -> bytes:
        if self._is_padded:
            symbols, padding = b"", symbols
        else:
            symbols, equals, padding = symbols.partition(b"=")
            self._is_padded = bool(equals)
        if padding.strip(b"="):
            raise _not_base64(self._field)
        return symbols

    def _to_bytes(self, symbols: bytes) -> bytes:
        try:
            return binascii.a2b_base64(symbols, strict_mode=True)
        except binascii.Error as error:
            raise _not_base64(self._field) from error


def _not_base64(field: str) -> InvalidRequestError:
    return refused(field, "is no base64 and no data URL of base64; encode the whole file so")
