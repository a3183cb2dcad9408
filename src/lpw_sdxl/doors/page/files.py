"""The files of the page as they are sent: compressed once, named by their content."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.datastructures import Headers
from starlette.responses import Response

INDEX = "index.html"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",  # no text becomes markup or a script
    "trusted-types": "'none'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # kept, and asked for by its ETag: a new version is seen at once
    "vary": "accept-encoding",
}
"""Headers of every file."""


@dataclass(frozen=True)
class PageFile:
    """One file of the page.

    Attributes:
        name: as addresses have it.
        media_type: by the ending of its name.
        content: as it lies in the package.
        compressed: with gzip.
        digest: of the content.
    """

    name: str
    media_type: str
    content: bytes
    compressed: bytes
    digest: str

    @classmethod
    def read(cls, file: Traversable) -> PageFile:
        """Read a file of the package."""
        content = file.read_bytes()
        return cls(
            file.name,
            MEDIA_TYPES["." + file.name.rpartition(".")[2]],
            content,
            gzip.compress(content, 9, mtime=0),
            hashlib.sha256(content).hexdigest()[:32],
        )

    def response(self, headers: Headers) -> Response:
        """Build the answer: the file, or 304 for a client that has it.

        Args:
            headers: of the request.
        """
        is_compressed = _takes_gzip(headers.get("accept-encoding", ""))
        content = self.compressed if is_compressed else self.content
        tag = f'"{self.digest}-gzip"' if is_compressed else f'"{self.digest}"'
        own = HEADERS | {"etag": tag}
        if tag in _tags(headers.get("if-none-match", "")):
            return Response(status_code=304, headers=own)
        if is_compressed:
            own = own | {"content-encoding": "gzip"}
        return Response(content, headers=own, media_type=self.media_type)


def read_files() -> tuple[PageFile, ...]:
    """Read all files of the page from the package."""
    folder = files(__package__).joinpath("static")
    return tuple(PageFile.read(file) for file in sorted(folder.iterdir(), key=lambda one: one.name))


def _tags(text: str) -> list[str]:
    """List the tags of an If-None-Match, which compares them as weak ones."""
    return [one.strip().removeprefix("W/") for one in text.split(",")]


def _takes_gzip(text: str) -> bool:
    for one in text.lower().split(","):
        name, *parameters = (part.strip().replace(" ", "") for part in one.split(";"))
        if name in ("gzip", "*"):
            return not any(part in ("q=0", "q=0.0", "q=0.00", "q=0.000") for part in parameters)
    return False
