"""Prompts to the conditioning that the UNet takes; `chunking` imports without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lpw_sdxl.conditioning.encoder import PromptEncoder

__all__ = ["PromptEncoder"]


def __getattr__(name: str) -> object:
    """Import PromptEncoder, and torch with it, at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lpw_sdxl.conditioning.encoder import PromptEncoder  # noqa: PLC0415

    return PromptEncoder
