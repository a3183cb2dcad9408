"""Text that others wrote, made fit for a terminal, a log and the store; pure."""

from __future__ import annotations

import unicodedata


def clean_text(text: str) -> str:
    """Return foreign text on one line, without what controls a terminal or turns its direction."""
    kept = (" " if char.isspace() else char for char in text)
    return "".join(char for char in kept if not unicodedata.category(char).startswith("C")).strip()
