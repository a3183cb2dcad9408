"""The imported upscalers that a request can name, found in a registry by their names; no torch."""

from __future__ import annotations

from difflib import get_close_matches

from lpw_sdxl.addon.registry import Addon, Registry
from lpw_sdxl.errors import AddonNotReadError, InvalidRequestError
from lpw_sdxl.second_pass import Upscaler
from lpw_sdxl.store.kind import AddonKind, slug

_NEAR_MATCHES = 3
_SHOWN_CHARACTERS = 64


def find_imported(registry: Registry, name: str, field: str) -> Addon:
    """Return the upscaler of a name, in upper or lower case and with any signs between words.

    Args:
        registry: what can be named now.
        name: as a user wrote it; not of one that every server has.
        field: of the request, that is blamed for an unknown name.

    Raises:
        AddonNotReadError: it is there, and its file is still being read.
        InvalidRequestError: there is none, or it can't be used.
    """
    key = slug(name)
    if key in registry.upscalers:
        return registry.upscalers[key]
    shown = repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")
    stored = AddonKind.UPSCALER.prefix + key
    pending = registry.pending.get(stored)
    if pending is not None:
        raise AddonNotReadError(
            f"The upscaler {shown} is still being read on this server; a request for an image waits"
            " until it is.",
            field=field,
            pending=pending,
        )
    if stored in registry.unusable:
        # The reason is in the log: it may name files, which are not a client's business.
        raise InvalidRequestError(
            f"The upscaler {shown} is there but can't be used, or is damaged; the service's log"
            " says why.",
            field=field,
        )
    known = {slug(name): name for name in upscaler_names(registry)}
    near = get_close_matches(key, known, n=_NEAR_MATCHES)
    if near:
        hint = f"near are {', '.join(repr(known[match]) for match in near)}"
    else:
        hint = f"this server has {len(registry.upscalers)} beside {', '.join(Upscaler)}"
    raise InvalidRequestError(f"No upscaler is named {shown}; {hint}.", field=field)


def upscaler_names(registry: Registry) -> list[str]:
    """Return the names of all upscalers: those that every server has, then the imported ones."""
    imported = [upscaler.manifest.name for upscaler in registry.upscalers.values()]
    return [*map(str, Upscaler), *sorted(imported, key=str.lower)]
