"""Puts the guard together as the settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from lpw_sdxl.api.asgi import Application
from lpw_sdxl.api.body import body_limits
from lpw_sdxl.api.guard import METRICS, PROBES, RequestGuard, Validator
from lpw_sdxl.api.listening import warn_of_strangers
from lpw_sdxl.api.openapi import Border, write_document
from lpw_sdxl.api.openapi_schemas import ServedLimits
from lpw_sdxl.api.origins import OpenedToOrigins, Origins, read_origins
from lpw_sdxl.api.tally import SparingFilter
from lpw_sdxl.api.tokens import Tokens
from lpw_sdxl.schema import (
    ImageSize,
    RequestLimits,
    parse_batch,
    parse_info,
    parse_inspection,
    parse_request,
)
from lpw_sdxl.settings import Settings


def check_border(settings: Settings) -> None:
    """Find out whether the border can be guarded, before anything is loaded.

    Raises:
        SettingsError: tokens, their file or an origin can't be used.
    """
    Tokens.from_settings(settings)
    read_origins(settings.cors_origins)


def guarded(
    app: Application,
    settings: Settings,
    native_size: ImageSize,
    count_error: Callable[[str], None],
) -> Application:
    """Wrap BentoML's application in all that stands before it.

    Raises:
        SettingsError: as `check_border`.
    """
    limits = RequestLimits.from_settings(settings)
    validators: dict[str, Validator] = {
        "/generate": partial(parse_request, limits=limits),
        "/generate_batch": partial(parse_batch, limits=limits),
        "/inspect_prompt": partial(parse_inspection, limits=limits),
        "/info": parse_info,
    }
    tokens = Tokens.from_settings(settings)
    opened = read_origins(settings.cors_origins)
    switched = {PROBES: settings.open_probes, METRICS: settings.open_metrics}
    open_paths = frozenset[str]().union(*(paths for paths in switched if switched[paths]))
    served = ServedLimits(limits, native_size, settings.max_prompt_chunks)
    border = Border(needs_token=tokens is not None, open_paths=open_paths)
    guard = RequestGuard(
        app,
        validators,
        body_limits(settings),
        documents={"/docs.json": write_document(served, border)},
        tokens=tokens,
        open_paths=open_paths,
        origins=Origins(opened, is_name_trusted=tokens is not None),
        count_error=count_error,
    )
    logging.getLogger("uvicorn.error").addFilter(SparingFilter())  # of requests that are none
    return OpenedToOrigins(guard, opened) if opened else guard


def warn_if_open(settings: Settings) -> None:
    """Say loudly that strangers can use the server, if they can."""
    if Tokens.from_settings(settings) is None:
        warn_of_strangers()
