"""Puts the border together as the settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from lpw_sdxl.api.access_tokens import AccessTokens
from lpw_sdxl.api.asgi import Application
from lpw_sdxl.api.endpoints import Endpoint, EndpointTable
from lpw_sdxl.api.guard import Admission, RequestGuard
from lpw_sdxl.api.listening import warn_if_exposed
from lpw_sdxl.api.operation import operation_endpoints, with_document
from lpw_sdxl.api.origins import OpenedToOrigins, Origins, read_origins
from lpw_sdxl.api.sparse_warning import SparseWarningFilter
from lpw_sdxl.settings import Settings


def check_border(settings: Settings) -> None:
    """Find out whether the border can be guarded, before anything is loaded.

    Raises:
        SettingsError: tokens, their file or an origin can't be used.
    """
    AccessTokens.from_settings(settings)
    read_origins(settings.cors_origins)


def guarded(
    app: Application,
    endpoints: Iterable[Endpoint],
    settings: Settings,
    count_error: Callable[[str], None],
) -> Application:
    """Wrap BentoML's application in all that stands before it.

    Args:
        app: BentoML's.
        endpoints: the rows of the service; those of its operation are added.
        settings: the service's.
        count_error: is given the code of every error that is answered.

    Raises:
        SettingsError: as `check_border`.
    """
    tokens = AccessTokens.from_settings(settings)
    opened = read_origins(settings.cors_origins)
    table = endpoint_table(endpoints, settings)
    admission = Admission(tokens, Origins(opened, is_name_trusted=tokens is not None))
    guard = RequestGuard(app, table, admission, count_error)
    logging.getLogger("uvicorn.error").addFilter(SparseWarningFilter())  # of requests that are none
    # HEAD needs no preflight: a browser sends it as it sends GET.
    methods = sorted({method for row in table for method in row.methods} - {"HEAD"})
    return OpenedToOrigins(guard, opened, methods) if opened else guard


def endpoint_table(endpoints: Iterable[Endpoint], settings: Settings) -> EndpointTable:
    """Put the rows of a server together: the service's, its operation's and the document's.

    No body is larger than the server's limit, whatever its row says.
    """
    rows = [
        replace(row, body=replace(row.body, limit=min(row.body.limit, settings.max_body_bytes)))
        if row.body
        else row
        for row in (*endpoints, *operation_endpoints(settings))
    ]
    has_tokens = AccessTokens.from_settings(settings) is not None
    return EndpointTable(with_document(rows, has_tokens=has_tokens))


def warn_if_open(settings: Settings) -> None:
    """Say loudly that strangers can use the server, if they can."""
    if AccessTokens.from_settings(settings) is None:
        warn_if_exposed()
