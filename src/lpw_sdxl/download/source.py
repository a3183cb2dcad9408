"""What SOURCE on the command line means: a file, a URL, or a model version on Civitai.

Pure: nothing is opened or asked. A URL may be presigned or private, so what is stored, printed and
logged is a source's `public` form, which has no query.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote_plus, urlsplit

from lpw_sdxl.errors import CheckpointError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: C:\ is a drive
_UNPRINTABLE = re.compile(r"[\s\x00-\x20\x7f]")
_PAGE = re.compile(r"/models/[0-9]+(/[^/]*)?/?")
_DOWNLOAD = re.compile(r"/api/download/models/([0-9]+)/?")
# civitai.red shows what civitai.com leaves out; the API behind both is the same
# (https://github.com/Confuzu/CivitAI_Image_grabber/issues/68).
_CIVITAI_HOSTS = frozenset(
    {"civitai.com", "www.civitai.com", "civitai.red", "www.civitai.red"},
)
# Whole names only: a presigned URL's X-Amz-Security-Token or sig is not the user's key.
_KEY_PARAMETER = re.compile(
    r"secret|client_secret|password|passwd|bearer|jwt|auth|authorization"
    r"|((api|access|auth|private)_?)?(token|key)"
)
_WHAT_IS_RIGHT = "a path (./NAME if it has a colon), an https URL or civitai:VERSION_ID is right"
_VERSION_ID_ADVICE = (
    "the version id is the number behind modelVersionId= in the address of the model's page, "
    "after a click on the version"
)


@dataclass(frozen=True)
class LocalSource:
    """A file of this machine."""

    path: Path

    @property
    def public(self) -> str:
        """Return what may be stored and printed: the name without its folder."""
        return f"file:{self.path.name}"


@dataclass(frozen=True, repr=False)
class UrlSource:
    """A file on the web; the URL has no fragment, no user and no key."""

    url: str

    @property
    def public(self) -> str:
        """Return what may be stored and printed: the URL without its query."""
        return without_query(self.url)

    def __repr__(self) -> str:
        return f"UrlSource({self.public!r})"


@dataclass(frozen=True)
class CivitaiSource:
    """A model version on Civitai."""

    version_id: int

    @property
    def public(self) -> str:
        """Return what may be stored and printed."""
        return f"civitai:{self.version_id}"


Source = LocalSource | UrlSource | CivitaiSource


def parse_source(text: str, civitai_url: str = "https://civitai.com") -> Source:
    """Read what the user named as the source of a checkpoint.

    Args:
        text: a path, a URL, or `civitai:` and the id of a model version.
        civitai_url: where Civitai is; addresses of its pages are understood.

    Raises:
        CheckpointError: it is none of these, or a URL that is not safe to use.
    """
    scheme = _SCHEME.match(text)
    if not text.strip():
        raise CheckpointError(f"The source is empty; {_WHAT_IS_RIGHT}.")
    if not scheme:
        return LocalSource(_expanded(text))
    if scheme[1].lower() == "civitai":
        return CivitaiSource(_version_id(text[scheme.end() :]))
    if scheme[1].lower() not in ("http", "https"):
        raise CheckpointError(f"A source of {scheme[1]}: is not supported; {_WHAT_IS_RIGHT}.")
    parts = check_url(text)
    _refuse_keys(parts)
    if parts.hostname in _CIVITAI_HOSTS or parts.netloc == check_url(civitai_url).netloc:
        version_id = _version_in_address(parts)
        if version_id is not None:
            return CivitaiSource(version_id)
    return UrlSource(parts.geturl())


def check_url(url: str) -> SplitResult:
    """Check that a URL may be asked for a file, and return its parts without the fragment.

    Raises:
        CheckpointError: it can't be read, holds a password, or would travel unencrypted.
    """
    try:
        parts = urlsplit(url)
        parts = parts._replace(netloc=parts.netloc.lower(), fragment="")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or _UNPRINTABLE.search(url):
        raise CheckpointError(
            "The URL can't be read; https://HOST/PATH is right, with every space as %20."
        )
    if "@" in parts.netloc:
        raise CheckpointError(
            f"The URL of {host} has a user or password before the @; leave that out."
        )
    if parts.scheme.lower() != "https" and not (
        parts.scheme.lower() == "http" and is_loopback(host)
    ):
        raise CheckpointError(f"The URL of {host} begins with {parts.scheme}:; https is needed.")
    return parts


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine itself, by its name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def without_query(url: str) -> str:
    """Return a URL's scheme, host, port and path: what may be stored, printed and logged."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{text} names the folder of a user that is not known.") from error


def _version_id(text: str) -> int:
    # What stands there is not repeated: it may be a whole URL with a key in it.
    if not re.fullmatch("[0-9]{1,15}", text) or int(text) == 0:
        raise CheckpointError(
            "civitai: goes with the id of a model version, such as civitai:2514310; "
            f"{_VERSION_ID_ADVICE}."
        )
    return int(text)


def _refuse_keys(parts: SplitResult) -> None:
    """Refuse a query parameter that looks like a key; its value is never repeated."""
    for pair in re.split("[&;]", parts.query):
        name = unquote_plus(pair.partition("=")[0]).strip()
        if _KEY_PARAMETER.fullmatch(re.sub("[-. ]", "_", name.lower())):
            raise CheckpointError(
                f"The URL of {parts.hostname} has a parameter {name!r}, which looks like a key; "
                "leave it out (Civitai's key goes into the environment, as CIVITAI_TOKEN)."
            )


def _version_in_address(parts: SplitResult) -> int | None:
    """Return the version that a Civitai address means, or None if it is an address of a file."""
    if _PAGE.fullmatch(parts.path):
        version_id = parse_qs(parts.query).get("modelVersionId", [""])[0]
        if re.fullmatch("[0-9]{1,15}", version_id) and int(version_id):
            return int(version_id)
        raise CheckpointError(
            "This is the page of a model with all its versions; choose one, as civitai:VERSION_ID: "
            f"{_VERSION_ID_ADVICE}."
        )
    download = _DOWNLOAD.fullmatch(parts.path)
    # Options such as type, format, size, fp and fileId choose another file than the usual one.
    if download and all(name.startswith("utm_") for name in parse_qs(parts.query)):
        return _version_id(download[1])
    return None
