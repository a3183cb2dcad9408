"""Reports of long work while it lasts."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, what is done and what there is to do, both in bytes.

The stages of an import are `download`, `hash`, `convert` and `verify`, then `generate`, which
counts steps. A total of 0 is one that is not known.
"""
