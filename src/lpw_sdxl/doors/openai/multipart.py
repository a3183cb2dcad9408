"""The parts of a multipart body (RFC 7578), cut out of memory under bounds.

It knows nothing of what the parts mean. The body is searched in windows, since one call of a
pattern over megabytes would hold the interpreter, and each byte is looked at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from lpw_sdxl.errors import InvalidRequestError

MAX_PARTS = 100
MAX_HEAD_BYTES = 4096  # of one part
MAX_BOUNDARY_BYTES = 200  # RFC 2046 has 70
_PREAMBLE_BYTES = 4096
_WINDOW = 256 * 1024
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)
_DISPOSITION = re.compile(rb"content-disposition\s*:\s*form-data\s*(;.*)", re.IGNORECASE)
_PARAMETER = re.compile(
    rb';\s*(name|filename\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))', re.IGNORECASE
)
_ENCODING = re.compile(rb"content-transfer-encoding\s*:\s*(\S+)", re.IGNORECASE)
_PLAIN_ENCODINGS = (b"binary", b"8bit", b"7bit")
_LINE_END = b"\r\n"
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class PartBounds:
    """The most bytes that parts may have.

    Attributes:
        text: of all parts without a file's name together.
        file: of a part with it.
        encoded: of a part without it that is a picture all the same, in base64.
        pictures: fields with pictures.
    """

    text: int
    file: int
    encoded: int = 0
    pictures: Collection[str] = ()

    def is_encoded(self, name: str) -> bool:
        """Return whether a part without a file's name, such as `image[]`, is a picture."""
        return name.partition("[")[0] in self.pictures


@dataclass(frozen=True)
class Part:
    """One part of a form.

    Attributes:
        name: of the field.
        content: as it was sent.
        is_file: whether it has a file's name.
    """

    name: str
    content: bytes
    is_file: bool


def read_boundary(content_type: str) -> bytes:
    """Read the boundary from a Content-Type.

    Raises:
        InvalidRequestError: there is none, or one that can't be used.
    """
    found = _BOUNDARY.search(content_type)
    boundary = (found[1] or found[2]).encode("latin-1") if found else b""
    if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
        raise InvalidRequestError("the content-type multipart/form-data needs a boundary")
    return boundary


def read_parts(body: bytes | memoryview, boundary: bytes, bounds: PartBounds) -> list[Part]:
    """Read all parts of a body.

    Raises:
        InvalidRequestError: it is cut off or damaged, or a part is over its bounds.
    """
    delimiter = re.compile(re.escape(b"\r\n--" + boundary))
    position = _after_first_delimiter(body, boundary)
    parts: list[Part] = []
    texts = 0
    while bytes(body[position : position + 2]) != b"--":
        if len(parts) == MAX_PARTS:
            raise InvalidRequestError(f"the form has more than {MAX_PARTS} parts")
        start = _end_of(body, _LINE_END, position)
        if bytes(body[position : start - 2]).strip(b" \t"):
            raise _broken("a boundary with something behind it")
        if bytes(body[start : start + 2]) == _LINE_END:
            raise _broken("a part without a head")
        content_start = _end_of(body, _HEAD_END, start)
        name, is_file = _read_head(bytes(body[start : content_start - 4]))
        # The line end that ends a head may belong to the delimiter behind an empty content.
        end = _find(body, delimiter, content_start - 2, len(boundary) + 4)
        if end is None:
            raise _broken("no closing boundary")
        if is_file or bounds.is_encoded(name):
            _check_size(name, end - content_start, bounds.file if is_file else bounds.encoded)
        else:
            _check_size(name, end - content_start, bounds.text - texts)
            texts += end - content_start
        parts.append(Part(name, bytes(body[content_start:end]), is_file))
        position = end + len(boundary) + 4
    return parts


def _check_size(name: str, size: int, most: int) -> None:
    """Refuse a part of more bytes than are left for it."""
    if size > most:
        raise InvalidRequestError(
            f"{name[:64]} has {size} bytes and may have {most}", field=name[:64]
        )


def _after_first_delimiter(body: bytes | memoryview, boundary: bytes) -> int:
    """Return the offset behind the first boundary; a preamble before it has no meaning."""
    beginning = b"\r\n" + bytes(body[: _PREAMBLE_BYTES + len(boundary)])
    found = beginning.find(b"\r\n--" + boundary)
    if found < 0:
        raise _broken("no boundary at its beginning")
    return found + 2 + len(boundary)


def _end_of(body: bytes | memoryview, mark: bytes, position: int) -> int:
    """Return the offset behind a mark that follows within a head's length."""
    found = bytes(body[position : position + MAX_HEAD_BYTES]).find(mark)
    if found < 0:
        raise _broken(f"a head without an end within {MAX_HEAD_BYTES} bytes")
    return position + found + len(mark)


def _find(
    body: bytes | memoryview, pattern: re.Pattern[bytes], position: int, length: int
) -> int | None:
    """Return where a pattern of a fixed length is found first; None if it is not."""
    while position < len(body):
        found = pattern.search(body, position, position + _WINDOW + length)
        if found:
            return found.start()
        position += _WINDOW
    return None


def _read_head(head: bytes) -> tuple[str, bool]:
    """Read a part's field name, and whether it is a file."""
    parameters: dict[bytes, bytes] = {}
    for line in head.split(_LINE_END):
        if found := _DISPOSITION.fullmatch(line.strip()):
            for key, quoted, plain in _PARAMETER.findall(found[1]):
                parameters.setdefault(key.lower(), quoted or plain)
        elif (found := _ENCODING.fullmatch(line.strip())) and (
            found[1].lower() not in _PLAIN_ENCODINGS
        ):
            raise InvalidRequestError("a part has a content-transfer-encoding; it must be binary")
    name = parameters.pop(b"name", b"")
    if not name:
        raise _broken("a part without a name")
    return name.decode("utf-8", "replace"), bool(parameters)


def _broken(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"the form can't be read: {what}")
