"""Assembly of the HTTP border from the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from lpw_sdxl.api.access_tokens import AccessTokens, has_tokens
from lpw_sdxl.api.asgi import Application
from lpw_sdxl.api.dialect import ErrorDialect
from lpw_sdxl.api.endpoint_table import EndpointTable
from lpw_sdxl.api.endpoints import Backend, Endpoint
from lpw_sdxl.api.guard import Admission, RequestGuard
from lpw_sdxl.api.listening import warn_if_exposed
from lpw_sdxl.api.operation import operation_endpoints, with_document
from lpw_sdxl.api.origins import OriginMiddleware, Origins, read_origins
from lpw_sdxl.api.own_names import read_hosts
from lpw_sdxl.api.sparse_warning import SparseWarningFilter
from lpw_sdxl.errors import LpwSdxlError
from lpw_sdxl.settings import Settings

logger = logging.getLogger(__name__)

LARGEST_BODIES = 8  # so many largest bodies may be under way
# Loggers of warnings that any client can cause: of malformed requests, and of suspicious ones.
SPARSE_LOGGERS = ("uvicorn.error", "lpw_sdxl.engine.resolver")


def check_border(settings: Settings) -> None:
    """Check the settings of the border, before anything is loaded.

    Raises:
        SettingsError: the tokens, their file, an origin or a host can't be used.
    """
    AccessTokens.from_settings(settings)
    read_origins(settings.cors_origins)
    read_hosts(settings.hosts)


def guard_application(
    app: Application,
    endpoints: Iterable[Endpoint],
    settings: Settings,
    count_error: Callable[[str], None],
    backend: Callable[[], Backend],
    *,
    obstacle: Callable[[], LpwSdxlError | None],
    dialects: Mapping[str, ErrorDialect] = MappingProxyType({}),
) -> Application:
    """Wrap BentoML's application in the guard and, if origins are opened, in `OriginMiddleware`.

    Args:
        app: BentoML's application.
        endpoints: the rows of the service; those of `operation.py` are added.
        settings: of the service.
        count_error: called with the code of every error that is answered.
        backend: returns the running service.
        obstacle: returns why there is no engine now, or None.
        dialects: of the errors at paths that no row has, by the beginning of the path.

    Raises:
        SettingsError: as `check_border`.
    """
    tokens = AccessTokens.from_settings(settings)
    if tokens is not None:
        tokens.watch()
    opened = read_origins(settings.cors_origins)
    table = endpoint_table(endpoints, settings, dialects)
    # Where any bearer token is taken, a page under a rebound name could send one.
    is_name_trusted = tokens is not None and not settings.trust_proxy_auth
    origins = Origins(opened, is_name_trusted, read_hosts(settings.hosts))
    admission = Admission(tokens, origins)
    guard = RequestGuard(
        app,
        table,
        admission,
        count_error,
        backend=backend,
        obstacle=obstacle,
        body_memory_bytes=LARGEST_BODIES * settings.max_body_bytes,
    )
    for name in SPARSE_LOGGERS:
        logging.getLogger(name).addFilter(SparseWarningFilter())
    # HEAD needs no preflight: browsers treat it as they treat GET.
    methods = sorted({method for row in table for method in row.methods} - {"HEAD"})
    return OriginMiddleware(guard, opened, methods) if opened else guard


def endpoint_table(
    endpoints: Iterable[Endpoint],
    settings: Settings,
    dialects: Mapping[str, ErrorDialect] = MappingProxyType({}),
) -> EndpointTable:
    """Build the table of a server: the service's rows, those of `operation.py`, and the document's.

    Each row's body limit is at most the server's own.
    """
    rows = [
        replace(row, body=replace(row.body, limit=min(row.body.limit, settings.max_body_bytes)))
        if row.body
        else row
        for row in (*endpoints, *operation_endpoints(settings))
    ]
    return EndpointTable(with_document(rows, has_tokens=has_tokens(settings)), dialects)


def warn_if_unprotected(settings: Settings) -> None:
    """Log warnings if clients of other machines can use the server without one of its tokens."""
    if not has_tokens(settings):
        warn_if_exposed()
    if settings.trust_proxy_auth:
        logger.warning(
            "LPW_SDXL_TRUST_PROXY_AUTH is set: %s",
            "any bearer token is taken for one that a proxy has checked, so nothing but that proxy"
            " may reach this port"
            if has_tokens(settings)
            else "it has no effect, for this server has no tokens and asks for none",
        )
