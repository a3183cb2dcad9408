"""Any https URL of a file; nothing is known of the file before it is fetched."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lpw_sdxl.download.remote import RemoteFile
from lpw_sdxl.download.source import SourceKind
from lpw_sdxl.download.urls import without_query
from lpw_sdxl.settings import EnvironmentSettings

if TYPE_CHECKING:
    from lpw_sdxl.download.http import Client

SETTINGS = EnvironmentSettings
USAGE = "an https URL"


def make_kind(_settings: EnvironmentSettings) -> SourceKind:
    """Make the kind of source that takes any URL."""
    return SourceKind(USAGE, lambda parts: UrlSource(parts.geturl()), takes_any_url=True)


@dataclass(frozen=True, repr=False)
class UrlSource:
    """A file on the web; the URL has no fragment, no user and no key."""

    url: str

    @property
    def public(self) -> str:
        """Return what may be stored and printed: the URL without its query."""
        return without_query(self.url)

    @property
    def folder_name(self) -> str:
        """Return host and hash of the whole URL."""
        host = re.sub("[^a-z0-9.-]", "_", urlsplit(self.url).hostname or "")[:100]
        return f"{host}-{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"

    def describe(self, _client: Client) -> RemoteFile:
        """Return the URL alone: no server is asked."""
        return RemoteFile(self.url)

    def __repr__(self) -> str:
        return f"UrlSource({self.public!r})"
