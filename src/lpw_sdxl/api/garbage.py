"""Python's garbage collector, kept away from what stays as long as its process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage in the meantime, nor ever again in what is there at the end.

    For a worker's imports: torch, Diffusers and Transformers make half a million objects that stay,
    and the collector would walk through them again and again, in all for a fifth of a start's CPU
    time. The price is 8 MB of garbage that stays too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
