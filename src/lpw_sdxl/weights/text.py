"""Text that others wrote, made fit for a terminal, a log and the store; pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_MAX_NAME = 100
"""Characters of a name in a list; SDXL's longest tensor has 88."""


def clean_text(text: str) -> str:
    """Return foreign text on one line, without what controls a terminal or turns its direction."""
    kept = (" " if char.isspace() else char for char in text)
    return "".join(char for char in kept if not unicodedata.category(char).startswith("C")).strip()


def listed(names: Sequence[str], at_most: int) -> str:
    """Return names that others wrote as a list, the first ones if they are more than `at_most`."""
    shown = [clean_text(name)[:_MAX_NAME] for name in names[:at_most]]
    more = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(shown) + more
