"""A door as service.py opens it: the part of a server that its rows are built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lpw_sdxl.api.dialect import ErrorDialect
from lpw_sdxl.api.endpoints import Endpoint
from lpw_sdxl.api.native_schemas import ServedLimits


@dataclass(frozen=True)
class ServedDoor:
    """The server in front of which a door stands.

    Attributes:
        limits: on requests.
        model_tag: of the served model.
        model_created: when it was imported, ISO 8601.
        public_url: where clients reach this server; empty for the host that they name.
        workers: of this server.
        model_file: name of the checkpoint's file; empty if it is not known.
        model_sha256: of that file, hex.
    """

    limits: ServedLimits
    model_tag: str
    model_created: str
    public_url: str = ""
    workers: int = 1
    model_file: str = ""
    model_sha256: str = ""


@dataclass(frozen=True)
class Door:
    """One API.

    Attributes:
        endpoints: builds its rows.
        prefixes: beginnings of its paths, for errors where no row is.
        dialect: of its errors.
    """

    endpoints: Callable[[ServedDoor], tuple[Endpoint, ...]]
    prefixes: tuple[str, ...]
    dialect: ErrorDialect
