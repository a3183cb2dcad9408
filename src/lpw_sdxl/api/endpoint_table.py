"""The table of a server's endpoints, found by path and method."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import BaseModel
from starlette.routing import compile_path

from lpw_sdxl.api.dialect import NATIVE, ErrorDialect
from lpw_sdxl.api.endpoints import Endpoint

_SLASHES = re.compile("/{2,}")


@dataclass(frozen=True)
class PathRows:
    """The rows at one path.

    Attributes:
        by_method: the row of each method; at least one.
        parameters: path parameters, as text.
    """

    by_method: Mapping[str, Endpoint]
    parameters: Mapping[str, str]

    @property
    def first(self) -> Endpoint:
        """Return the first row, which stands for the path if no row has a request's method."""
        return next(iter(self.by_method.values()))

    @property
    def allow(self) -> str:
        """Return the methods, as the Allow header lists them."""
        return ", ".join(self.by_method)


class EndpointTable:
    """All rows of a server, found by path and method.

    Args:
        endpoints: the rows; a path without parameters goes before one with parameters, and of two
            matching paths with parameters the first one counts.
        dialects: of the errors at paths that no row has, by the beginning of the path.

    Raises:
        ValueError: two rows claim one method of one path.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        dialects: Mapping[str, ErrorDialect] = MappingProxyType({}),
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._dialects = dialects
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in self._endpoints:
            methods = by_path.setdefault(endpoint.path, {})
            if not methods.keys().isdisjoint(endpoint.methods):
                raise ValueError(f"two endpoints claim {endpoint.methods} of {endpoint.path}")
            methods |= dict.fromkeys(endpoint.methods, endpoint)
        self._fixed = {path: rows for path, rows in by_path.items() if "{" not in path}
        self._patterns = [
            (compile_path(path)[0], rows) for path, rows in by_path.items() if "{" in path
        ]

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._endpoints)

    def dialect_at(self, path: str) -> ErrorDialect:
        """Return the dialect of errors at a path that no row has."""
        path = _without_idle_slashes(path)
        matching = (one for start, one in self._dialects.items() if path.startswith(start))
        return next(matching, NATIVE)

    def find(self, path: str) -> PathRows | None:
        """Return the rows at a path; None if there are none.

        The paths of other APIs may have slashes too many: their clients are given a base URL, and
        people end it with one.
        """
        found = self._find(path)
        plain = _without_idle_slashes(path)
        if found is not None or plain == path:
            return found
        found = self._find(plain)
        return None if found is None or found.first.dialect is NATIVE else found

    def _find(self, path: str) -> PathRows | None:
        if path in self._fixed:
            return PathRows(self._fixed[path], {})
        for pattern, rows in self._patterns:
            if match := pattern.fullmatch(path):
                return PathRows(rows, match.groupdict())
        return None


def field_names(types: Collection[type[BaseModel]]) -> frozenset[str]:
    """Return the names of all fields of some models, nested models included."""
    names: set[str] = set()
    waiting: list[object] = [type_.model_json_schema() for type_ in types]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            names |= value.get("properties", {}).keys()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return frozenset(names)


def _without_idle_slashes(path: str) -> str:
    return _SLASHES.sub("/", path).rstrip("/") or "/"
