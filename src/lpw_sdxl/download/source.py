"""The meaning of SOURCE on the command line: a file of this machine, or one of the web.

Each kind of source on the web is a module of `sources/`, which nothing else names: it holds its
own settings, its own form of SOURCE, and how to find out what a file is before it is fetched.
A URL may be presigned or private, so what is stored, printed and logged is a source's `public`
form, which has no query.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast
from urllib.parse import SplitResult

from lpw_sdxl.download import sources
from lpw_sdxl.download.key import Key
from lpw_sdxl.download.remote import RemoteFile
from lpw_sdxl.download.urls import check_url, find_key_parameter
from lpw_sdxl.errors import CheckpointError
from lpw_sdxl.settings import EnvironmentSettings, read_settings

if TYPE_CHECKING:
    from lpw_sdxl.download.http import Client

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: C:\ is a drive


class Source(Protocol):
    """One file of the web, as the user named it."""

    @property
    def public(self) -> str:
        """Return what may be stored, printed and logged."""

    @property
    def folder_name(self) -> str:
        """Return the name of its folder among the downloads; no other source has the same."""

    def describe(self, client: Client) -> RemoteFile:
        """Find out what the file is before it is fetched.

        Raises:
            TransientError: its server can't be reached now.
            CheckpointError: there is no such file, or it must not be had.
        """


class Scheme(NamedTuple):
    """A form of SOURCE that is no URL, `NAME:REST`: its name, and what makes a source of REST."""

    name: str
    read: Callable[[str], Source]


@dataclass(frozen=True)
class SourceKind:
    """A kind of source: how users write it, and what that means.

    Attributes:
        form: of SOURCE, for messages, such as `an https URL`.
        claim: makes a source of an https URL that belongs to this kind, or returns None.
        takes_any_url: `claim` returns a source for every URL, so other kinds are asked first.
        scheme: its own, beside URLs; None for none.
        key: the user's, for one origin; None where there is no such thing.
    """

    form: str
    claim: Callable[[SplitResult], Source | None]
    takes_any_url: bool = False
    scheme: Scheme | None = None
    key: Key | None = None


class SourceModule(Protocol):
    """The face of a module of `sources/`."""

    SETTINGS: type[EnvironmentSettings]
    USAGE: str
    """Forms of SOURCE, for the help of a command line."""

    def make_kind(self, settings: EnvironmentSettings) -> SourceKind:
        """Make its kind of source with its settings."""


@dataclass(frozen=True)
class LocalSource:
    """A file of this machine."""

    path: Path

    @property
    def public(self) -> str:
        """Return what may be stored and printed: the name without its folder."""
        return f"file:{self.path.name}"


def source_modules() -> list[SourceModule]:
    """Return the modules of `sources/`, by name."""
    names = sorted(module.name for module in iter_modules(sources.__path__))
    return [cast(SourceModule, import_module(f"{sources.__name__}.{name}")) for name in names]


def read_kinds() -> tuple[SourceKind, ...]:
    """Return every kind of source with its settings; those that take any URL come last.

    Raises:
        SettingsError: an environment variable holds what can't be used; it is named.
    """
    kinds = [module.make_kind(read_settings(module.SETTINGS)) for module in source_modules()]
    return tuple(sorted(kinds, key=lambda kind: kind.takes_any_url))


def usage() -> str:
    """Return all forms of SOURCE, for the help of a command line; no setting is read."""
    return _either(["a .safetensors file", *(module.USAGE for module in source_modules())])


def parse_source(text: str, kinds: Sequence[SourceKind]) -> LocalSource | Source:
    """Read what the user named as the source of a file.

    Args:
        text: a path, or what one of the kinds takes.
        kinds: as `read_kinds` returns them.

    Raises:
        CheckpointError: it is none of these, or a URL that is not safe to use.
    """
    scheme = _SCHEME.match(text)
    if not text.strip():
        raise CheckpointError(f"The source is empty; {_what_is_right(kinds)}.")
    if not scheme:
        return LocalSource(_expanded(text))
    name = scheme[1].lower()
    if name in ("http", "https"):
        return _claim(text, kinds)
    for kind in kinds:
        if kind.scheme is not None and kind.scheme.name == name:
            return kind.scheme.read(text[scheme.end() :])
    raise CheckpointError(f"A source of {scheme[1]}: is not supported; {_what_is_right(kinds)}.")


def _claim(url: str, kinds: Sequence[SourceKind]) -> Source:
    """Return the source that a URL means: that of the first kind to claim it."""
    parts = check_url(url)
    parameter = find_key_parameter(parts)
    if parameter is not None:
        keys = [kind.key for kind in kinds if kind.key is not None]
        places = "; ".join(
            f"{key.owner}'s key goes into the environment, as {key.variable}" for key in keys
        )
        raise CheckpointError(
            f"The URL of {parts.hostname} has a parameter {parameter!r}, which looks like a key; "
            f"leave it out{f' ({places})' if places else ''}."
        )
    for kind in kinds:
        source = kind.claim(parts)
        if source is not None:
            return source
    raise CheckpointError(f"No kind of source takes this URL; {_what_is_right(kinds)}.")


def _what_is_right(kinds: Sequence[SourceKind]) -> str:
    forms = ["a path (./NAME if it has a colon)", *(kind.form for kind in reversed(kinds))]
    return f"{_either(forms)} is right"


def _either(forms: Sequence[str]) -> str:
    """Join clauses as alternatives."""
    *first, last = forms
    return f"{', '.join(first)} or {last}" if first else last


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{text} names the folder of a user that is not known.") from error
